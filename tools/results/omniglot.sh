#!/usr/bin/env bash
# Searched against fixed networks of equal MACs on Omniglot characters, three seeds (docs/results/omniglot.md).
# Usage: tools/results/omniglot.sh ROOT [OUT]   about 25 minutes on two cores; a finished run is not run again
source "$(dirname "$0")/../env.sh"
root=${1:?usage: omniglot.sh ROOT [OUT]}
out=${2:-runs/omniglot}
runs=()
train() {
    runs+=("$out/$1")
    [ -f "$out/$1/summary.json" ] || dnas retrain --config configs/omniglot.yaml --data "$root" --out "$out/$1" "${@:2}"
}
for seed in 0 1 2; do
    search=$out/search-$seed
    [ -f "$search/cost.json" ] || dnas search --config configs/omniglot-search.yaml --data "$root" --out "$search" --seed $seed
    train searched-$seed --genotype "$search" --seed $seed
    train mobilenet-$seed --backbone mobilenet_v2 --backbone_width 0.5 --seed $seed
    train resnet-$seed --backbone resnet18 --backbone_width 0.225 --seed $seed
done
dnas show "$out/search-0" -o "$out/searched-0.svg"
dnas compare "${runs[@]}" -o "$out/compare.png"
