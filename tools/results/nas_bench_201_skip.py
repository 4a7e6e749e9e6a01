"""Does the proxy of docs/results/nas-bench-201.md see what a skip past two convolutions is worth?

    python tools/results/nas_bench_201_skip.py IMAGES [--seeds 2] [--epochs 10] [--cells 2]
    python tools/results/nas_bench_201_skip.py IMAGES --searches RUN [RUN ...] [--epochs 10]

IMAGES: the folder with `train/CLASS/*`. Two cells that differ in one edge, input to output: a skip (94.36 % after 200
epochs by the benchmark) or a 3x3 convolution (93.76 %), all others 3x3 convolutions. Both are trained shortly as in the
searches, in networks of so many cells a stage: the proxy has two, the benchmark five. The last line is JSON.

With finished searches: does a supernet see it, and would it if this edge began anew? The found cell with either option
on that edge, held out with the supernet's weights; and again after so many epochs more with all edges but this one
settled, which is drawn evenly from the two: by the last epochs of the schedule (small steps), or with `--whole` by the
whole of it in so many epochs. Nothing is written to the runs.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from statistics import mean

import torch

from dnas.data.augment import InputConfig
from dnas.loss.objective import LossConfig
from dnas.run.schedules import OptimConfig
from dnas.search.alone import short_training
from dnas.search.config import SearchConfig
from dnas.search.search import Search, opened
from dnas.space.spec import Choices, decisions, fill
from dnas.task import pick_task
from dnas.task.task import Needs
from search_spaces import named_space
from search_spaces.nas_bench_201 import edge_key, nas_bench_201

EDGE = edge_key(0, 3)
OPTIONS = ("skip_connect", "nor_conv_3x3")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--cells", type=int, nargs="+", default=(2,))
    parser.add_argument("--searches", type=Path, nargs="+", help="finished searches, whose supernets are asked")
    parser.add_argument("--whole", action="store_true", help="train them on by a whole schedule")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(anew(options) if options.searches else alone(options)))


def anew(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Run -> option -> held-out accuracies with the supernet's weights: as the search left them, and trained on."""
    found: dict[str, dict[str, list[float]]] = {}
    for folder in options.searches:
        search, run = opened(folder, named_space, "cpu")
        own: dict[str, Choices] = {option: {**search.choices, EDGE: option} for option in OPTIONS}
        scores = found[str(run.path)] = {option: [held_out(search, cell)] for option, cell in own.items()}
        rng = random.Random(search.config.seed)
        begun, count = search.config.optim.epochs, search.task.count("weights")
        for epoch in range(options.epochs):
            for number, (inputs, target) in enumerate(search.task.batches("weights", begun + epoch, 0, count)):
                search.relaxation.fix(own[rng.choice(OPTIONS)])
                search.stepper.net.train()
                done = epoch + number / count
                at = done * begun / options.epochs if options.whole else begun - options.epochs + done
                search.stepper(inputs, target, at, last=number + 1 == count)
        for option, cell in own.items():
            scores[option].append(held_out(search, cell))
        print(f"{run.path.name}: found {search.choices[EDGE]}; {scores}", flush=True)
    return found


def held_out(search: Search, cell: Choices) -> float:
    """Accuracy in percent with the supernet's weights."""
    return 100 * search.task.evaluate(search.children.recalibrated(cell))[search.task.metric]


def alone(options: argparse.Namespace) -> dict[int, dict[str, list[float]]]:
    """Cells a stage -> option -> held-out accuracies of networks trained on their own."""
    config = SearchConfig(
        options.images, "", task="classify", device="cpu", holdout=0.2, input=InputConfig(pad=2, erase=0),
        loss=LossConfig(smoothing=0, eta=0), optim=OptimConfig(optimiser="sgd", lr=0.05, batch=64, warmup=1),
    )  # fmt: skip
    found: dict[int, dict[str, list[float]]] = {}
    for cells in options.cells:
        space = nas_bench_201(f"{cells} cells a stage", cells=cells, side=16, residual=False)
        channels = space.spec.out(space.input).channels.size
        needs = Needs(space.height, space.width, channels, torch.device("cpu"), tested=False)
        task = pick_task("classify")(config, needs)
        found[cells] = {option: [] for option in OPTIONS}
        for seed in range(options.seeds):
            for option, scores in found[cells].items():
                cell = dict.fromkeys(decisions(space.spec), "nor_conv_3x3") | {EDGE: option}
                network = fill(space.spec, cell)
                scores.append(100 * short_training(config, task, network, space.input, options.epochs, seed))
                print(f"{space.name}, {EDGE} {option}, seed {seed}: held out {scores[-1]:.1f} %", flush=True)
        gain = [a - b for a, b in zip(*found[cells].values(), strict=True)]
        print(f"{space.name}: the skip minus the convolution {mean(gain):+.1f} points")
    return found


if __name__ == "__main__":
    main()
