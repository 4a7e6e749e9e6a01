#!/usr/bin/env bash
# Searched against fixed networks of equal MACs on Omniglot characters, three seeds (docs/results/omniglot.md).
# Usage: tools/results/omniglot.sh ROOT [OUT]   about 25 minutes on two cores; a finished run is not run again
source "$(dirname "$0")/../env.sh"
root=${1:?usage: omniglot.sh ROOT [OUT]}
out=${2:-runs/omniglot}
runs=()
go() { # VERB NAME FINISHED_FILE words...: run it, go on with it, or leave it if it is finished
    if [ -f "$out/$2/$3" ]; then return; fi
    if [ -f "$out/$2/config.yaml" ]; then dnas "$1" --resume "$out/$2"
    else dnas "$1" --data "$root" --out "$out/$2" "${@:4}"; fi
}
train() {
    runs+=("$out/$1")
    go retrain "$1" summary.json --config configs/omniglot.yaml "${@:2}"
}
for seed in 0 1 2; do
    go search search-$seed cost.json --config configs/omniglot-search.yaml --seed $seed
    train searched-$seed --genotype "$out/search-$seed" --seed $seed
    train mobilenet-$seed --backbone mobilenet_v2 --backbone_width 0.5 --seed $seed
    train resnet-$seed --backbone resnet18 --backbone_width 0.225 --seed $seed
done
dnas show "$out/search-0" -o "$out/searched-0.svg"
dnas compare "${runs[@]}" -o "$out/compare.png"
