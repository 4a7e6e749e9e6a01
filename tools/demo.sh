#!/usr/bin/env bash
# The whole road on synthetic pedestrians: data, search, drawing, two retrainings, comparison, report,
# and out of the lab: a threshold, an ONNX file, a gallery and what is found in it: some four minutes on two cores.
# Usage: tools/demo.sh [DIR]   (default runs/demo; a finished step is not run again)
extras=serve
source "$(dirname "$0")/env.sh"
out=${1:-runs/demo}
data=$out/pedestrians
config=configs/demo.yaml
mkdir -p "$out"
step() { echo; echo "\$ dnas $*"; dnas "$@"; }
[ -d "$data/query" ] || step data synth "$data" --ids 60
if [ -f "$out/search/config.yaml" ]; then step search --resume "$out/search"
else step search --config configs/demo-search.yaml --data "$data" --out "$out/search"; fi
step show "$out/search" -o "$out/searched.svg"
step show "$out/search" -o "$out/searched.png"
train() {
    if [ -f "$out/$1/summary.json" ]; then return; fi
    if [ -f "$out/$1/config.yaml" ]; then step retrain --resume "$out/$1"
    else step retrain --config $config --data "$data" --out "$out/$1" "${@:2}"; fi
}
train searched --genotype "$out/search"
train fixed --backbone resnet18 --backbone_width 0.1875
step compare "$out/searched" "$out/fixed" -o "$out/compare.png"
step draw choices "$out/search" -o "$out/choices.png"
step report "$out/search" "$out/searched" "$out/fixed" -o "$out/report.html"
[ -d "$out/others/query" ] || step data synth "$out/others" --ids 60 --seed 1 # people whom the network has not seen
step calibrate "$out/searched" --data "$out/others"
step export "$out/searched" -o "$out/searched.onnx" --data "$data"
step index "$out/searched" "$data/bounding_box_test" --named -o "$out/gallery"
queries=("$data"/query/*.jpg)
step find "$out/gallery" "${queries[0]}" "${queries[50]}" "${queries[100]}" -o "$out/found.html"
