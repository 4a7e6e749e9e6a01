"""Does the proxy of docs/results/nas-bench-201.md see what a skip past two convolutions is worth?

    python tools/results/nas_bench_201_skip.py IMAGES [--seeds 2] [--epochs 10] [--cells 2]

IMAGES: the folder with `train/CLASS/*`. Two cells that differ in one edge, input to output: a skip (94.36 % after 200
epochs by the benchmark) or a 3x3 convolution (93.76 %), all others 3x3 convolutions. Both are trained shortly as in the
searches, in networks of so many cells a stage: the proxy has two, the benchmark five. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from statistics import mean

import torch

from dnas.data.augment import InputConfig
from dnas.loss.objective import LossConfig
from dnas.run.schedules import OptimConfig
from dnas.search.alone import short_training
from dnas.search.config import SearchConfig
from dnas.space.spec import decisions, fill
from dnas.task import pick_task
from dnas.task.task import Needs
from search_spaces.nas_bench_201 import edge_key, nas_bench_201

EDGE = edge_key(0, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--cells", type=int, nargs="+", default=(2,))
    options = parser.parse_args()
    config = SearchConfig(
        options.images, "", task="classify", device="cpu", holdout=0.2, input=InputConfig(pad=2, erase=0),
        loss=LossConfig(smoothing=0, eta=0), optim=OptimConfig(optimiser="sgd", lr=0.05, batch=64, warmup=1),
    )  # fmt: skip
    torch.set_num_threads(1)
    found: dict[int, dict[str, list[float]]] = {}
    for cells in options.cells:
        space = nas_bench_201(f"{cells} cells a stage", cells=cells, side=16, residual=False)
        channels = space.spec.out(space.input).channels.size
        needs = Needs(space.height, space.width, channels, torch.device("cpu"), tested=False)
        task = pick_task("classify")(config, needs)
        found[cells] = {"skip_connect": [], "nor_conv_3x3": []}
        for seed in range(options.seeds):
            for option, scores in found[cells].items():
                cell = dict.fromkeys(decisions(space.spec), "nor_conv_3x3") | {EDGE: option}
                network = fill(space.spec, cell)
                scores.append(100 * short_training(config, task, network, space.input, options.epochs, seed))
                print(f"{space.name}, {EDGE} {option}, seed {seed}: held out {scores[-1]:.1f} %", flush=True)
        gain = [a - b for a, b in zip(*found[cells].values(), strict=True)]
        print(f"{space.name}: the skip minus the convolution {mean(gain):+.1f} points")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
