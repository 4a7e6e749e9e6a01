"""Searches of NAS-Bench-201 by its table (docs/results/nas-bench-201.md): does the search find?

    python tools/results/nas_bench_201.py --images cifar10-small.zip --table nas-bench-201.csv [--seeds 8] [--workers 2]
        [--controls 3] [--searches NAME ...] [--so_far]

Images: a zip of `train/CLASS/*`. The searches see a proxy (two cells a stage, half the resolution, pointwise
reductions); the table says what the found cell is worth at full size after 200 epochs of all of CIFAR-10. What is
finished is not run again; --so_far reports on the variants all of whose seeds are there. Beside the searches
(`SEARCHES`) and so many seeds of the default with one setting changed (`CONTROLS`), as many seeds each of

    random search   cells drawn at random and trained shortly on their own, in the time of a search: the best held-out
    most parameters, NASWOT (arXiv 2006.04647)   zero-cost scores alone, no training

The table is opened when all runs are done, once for one version of the settings; `looks.json` in the run folder counts.
Correlations, over random cells: the supernet's verdict with short trainings (the supernet's fault), short trainings
with the table (the proxy's fault); over all of them, and over the better half by the table.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from nas_bench_201_report import Benchmark, report

from dnas.errors import UserError
from dnas.nn.builder import PlainBuilder
from dnas.run.config import from_plain
from dnas.run.files import read_json, write_json
from dnas.run.folder import RunFolder
from dnas.search.alone import Alone
from dnas.search.config import SearchConfig
from dnas.search.search import opened
from dnas.search.zero_cost import naswot as score
from dnas.space.genotype import read_genotype
from dnas.space.spec import decisions, fill, image
from dnas.task import pick_task
from dnas.task.task import Needs, Task
from search_spaces import named_space
from search_spaces.nas_bench_201 import OPERATIONS, cell_string, edge_key

SPACE = "nas_bench_201_proxy"
COMMON = [
    "--task", "classify", "--space", SPACE, "--device", "cpu", "--holdout", "0.2", "--eval_every", "0",
    "--input.pad", "2", "--input.erase", "0", "--loss.smoothing", "0", "--loss.eta", "0",
    "--optim.optimiser", "sgd", "--optim.lr", "0.05",
    "--optim.batch", "64", "--optim.epochs", "40", "--optim.warmup", "1",
]  # fmt: skip


def arch(mode: str, data: str, weights_only: str, weights_draws: str, idle_dropout: str) -> list[str]:
    """What a search is measured by is spelled out, as defaults change; what these words leave out is `BARE`."""
    return [
        "--arch.mode", mode, "--arch.data", data, "--arch.weights_only", weights_only,
        "--arch.weights_draws", weights_draws, "--arch.idle_dropout", idle_dropout, "--arch.lr", "0.02",
    ]  # fmt: skip


ALONE_EPOCHS = 10
BARE = ["--arch.prior", "none", "--arch.samples", "0", "--arch.samples_from", "logits"]
BETWEEN = arch("between", "joint", "none", "both", "0.9")
PRIOR = [*BETWEEN, "--arch.prior", "naswot", "--arch.prior_weight", "3"]
OPTIONS = ["--arch.samples", "100", "--arch.samples_from", "uniform"]
TRAINED = ["--arch.samples_epochs", str(ALONE_EPOCHS)]
SEARCHES = {
    "between": BETWEEN,
    "between, samples trained": [*BETWEEN, "--arch.samples", "8", *TRAINED],
    "between, prior": PRIOR,
    "prior alone": [*PRIOR, "--optim.epochs", "1", "--arch.weights_only", "0.99"],
    "between, prior, neighbours": [*PRIOR, "--arch.samples", "16", "--arch.samples_from", "neighbours", *TRAINED],
    "between, prior, by options": [*PRIOR, *OPTIONS],
    "score": arch("score", "split", "0.3", "logits", "0"),
    "switch": arch("switch", "joint", "none", "both", "0.9"),
    "sampled": arch("sampled", "split", "0.3", "logits", "0"),
    "full": arch("full", "joint", "none", "logits", "0.9"),
}
"""`between` was the default until 2026-11-30, `score` as it is here until 2026-11-25."""
OURS = "between, prior, by options"
"""The default, which the others are held against."""
CHANGED = {
    "idle options from the start": arch("between", "joint", "none", "both", "0"),
    "draws follow the logits": arch("between", "joint", "none", "logits", "0.9"),
    "logits from the start": arch("between", "joint", "0", "both", "0.9"),
    "images apart": arch("between", "split", "none", "both", "0.9"),
    "gradient by score": arch("score", "joint", "none", "both", "0.9"),
    "gradient by switch": arch("switch", "joint", "none", "both", "0.9"),
}
CONTROLS = {name: [*words, *PRIOR[len(BETWEEN) :], *OPTIONS] for name, words in CHANGED.items()}
"""The default with one setting changed."""
BANK = 64
"""Random cells for the correlations; random search draws on, if its time allows more."""
CHUNK = 4
ZERO_COST = 200
"""Cells that NASWOT picks from, for each seed."""


def settings(variant: str = OURS) -> str:
    """Identifies what the runs of a variant were made with; of the default, the version of the experiment."""
    made = [SPACE, COMMON, {**SEARCHES, **CONTROLS}[variant], ALONE_EPOCHS, ZERO_COST]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]


def folder_of(out: Path, variant: str, seed: int) -> Path:
    return out / settings(variant) / f"{variant.replace(' ', '_')}-{seed}"


def random_cell(number: int) -> dict[str, str]:
    """The cell of this number in a fixed random order, with repetitions."""
    rng = random.Random(number)
    return {edge_key(s, node): rng.choice(list(OPERATIONS)) for node in range(1, 4) for s in range(node)}


def run_words(words: Sequence[str], log: Path) -> None:
    """A process of one thread."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *words], check=True, stdout=stream, stderr=subprocess.STDOUT, env=environment)


def search(images: Path, out: Path, variant: str, seed: int) -> None:
    folder = folder_of(out, variant, seed)
    if (folder / "cost.json").is_file():
        return
    new = [
        "--data",
        str(images),
        "--out",
        str(folder),
        "--seed",
        str(seed),
        *COMMON,
        *BARE,
        *{**SEARCHES, **CONTROLS}[variant],
    ]
    known = (folder / "config.yaml").is_file()
    run_words(["-m", "dnas.cli", "search", *(["--resume", str(folder)] if known else new)], folder.with_suffix(".log"))


def config_of(out: Path) -> SearchConfig:
    """That of the first search: proxy, data and training are the same in all."""
    folder = RunFolder.open(folder_of(out, OURS, 0))
    return from_plain(SearchConfig, folder.config(), str(folder.config_file))


def task_of(config: SearchConfig) -> Task:
    space = named_space(SPACE)
    needs = Needs(
        space.height, space.width, space.spec.out(space.input).channels.size, torch.device("cpu"), tested=False
    )
    return pick_task(config.task)(config, needs)


def train_alone(out: Path, first: int) -> None:
    """A chunk of random cells, each trained on its own: score on what is held out, and seconds."""
    config, space = config_of(out), named_space(SPACE)
    config = replace(config, optim=replace(config.optim, epochs=ALONE_EPOCHS))
    task = task_of(config)
    for number in range(first, first + CHUNK):
        file = out / settings() / "alone" / f"{number:04d}.json"
        if file.is_file():
            continue
        cell, start = random_cell(number), time.perf_counter()
        own = replace(config, seed=number)
        score = Alone(own, task, fill(space.spec, cell), space.input).score()
        write_json(file, {"cell": cell_string(cell), "score": score, "seconds": time.perf_counter() - start})


def inherited(out: Path, seed: int) -> None:
    """The verdict of a search's supernet on the cells of the bank."""
    file = folder_of(out, OURS, seed) / "inherited.json"
    if not file.is_file():
        state, _ = opened(file.parent, named_space, "cpu")
        write_json(file, [state.children.score(random_cell(number), state.task) for number in range(BANK)])


def naswot(out: Path, seed: int) -> None:
    """The best of some random cells by the log-determinant of how alike images light up untrained ReLUs."""
    file = out / settings() / f"naswot-{seed}.json"
    if file.is_file():
        return
    config, space = config_of(out), named_space(SPACE)
    images = next(iter(task_of(replace(config, seed=seed)).batches("weights", 0)))[0]
    scores = {}
    for number in range(ZERO_COST):
        cell = random_cell(100_000 * (seed + 1) + number)
        torch.manual_seed(seed)
        net = fill(space.spec, cell).build(image(*images.shape[2:]), PlainBuilder())
        scores[cell_string(cell)] = score(net, images)
    write_json(file, {"cell": max(scores, key=scores.__getitem__)})


def random_searches(out: Path, seeds: int) -> list[str]:
    """The best held-out cell of every random search. Each takes cells of the bank until its time is used up.

    Raises:
        FileNotFoundError: the bank has too few.
    """
    seconds = median(seconds_of(folder_of(out, OURS, seed)) for seed in range(seeds))
    found, number = [], 0
    for _ in range(seeds):
        spent, best = 0.0, ("", -1.0)
        while spent < seconds:
            file = out / settings() / "alone" / f"{number:04d}.json"
            if not file.is_file():
                raise FileNotFoundError(number)
            one = read_json(file)
            spent, number = spent + one["seconds"], number + 1
            best = max(best, (one["cell"], one["score"]), key=lambda pair: pair[1])
        found.append(best[0])
    return found


def seconds_of(folder: Path) -> float:
    return sum(float(row["epoch_s"]) for row in RunFolder.open(folder).rows("timing.jsonl"))


WORK = {"alone": train_alone, "inherited": inherited, "naswot": naswot}


def worker(out: Path, work: str, number: int) -> None:
    """What there is of it is not done again."""
    log = out / settings() / f"{work}.log"
    run_words([str(Path(__file__)), "--out", str(out), "--worker", work, str(number)], log)


def run(options: argparse.Namespace) -> None:
    """All runs, what is held against what first."""
    out, images, seeds = options.out, options.out / "images", range(options.seeds)
    if not images.is_dir():
        with zipfile.ZipFile(options.images) as archive:
            archive.extractall(images)
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda seed: search(images, out, OURS, seed), seeds))
        work = [("naswot", seed) for seed in seeds] + [("inherited", seed) for seed in seeds]
        list(pool.map(lambda job: worker(out, *job), work))
        bank = BANK
        while True:
            list(pool.map(lambda number: worker(out, "alone", number), range(0, bank, CHUNK)))
            try:
                random_searches(out, options.seeds)
                break
            except FileNotFoundError:
                bank += 4 * CHUNK
        others = [(variant, seed) for variant in options.searches for seed in seeds]
        others += [(variant, seed) for seed in range(options.controls) for variant in CONTROLS]
        list(pool.map(lambda job: search(images, out, *job), others))


def found_cells(options: argparse.Namespace) -> dict[str, list[str]]:
    """The cells that every variant found, a seed each; variants whose seeds are not all there are left out."""
    out, found = options.out, {}
    for variants, count in ((SEARCHES, options.seeds), (CONTROLS, options.controls)):
        for variant in variants:
            folders = [folder_of(out, variant, seed) for seed in range(count)]
            if folders and all((folder / "cost.json").is_file() for folder in folders):
                found[variant] = [cell_string(read_genotype(folder / "genotype.json").choices) for folder in folders]
    with contextlib.suppress(FileNotFoundError, UserError):
        found["random search, equal time"] = random_searches(out, options.seeds)
    files = [out / settings() / f"naswot-{seed}.json" for seed in range(options.seeds)]
    if all(file.is_file() for file in files):
        found["NASWOT"] = [read_json(file)["cell"] for file in files]
    dearest = dict.fromkeys(decisions(named_space(SPACE).spec), "nor_conv_3x3")
    return found | {"most parameters": [cell_string(dearest)] * options.seeds}


def judged(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[list[float]]] | None:
    """Random cells with what their own trainings say, and what every supernet says of them; none until all is there."""
    bank = [options.out / settings() / "alone" / f"{number:04d}.json" for number in range(BANK)]
    verdicts = [folder_of(options.out, OURS, seed) / "inherited.json" for seed in range(options.seeds)]
    if not all(file.is_file() for file in [*bank, *verdicts]):
        return None
    return [read_json(file) for file in bank], [read_json(file) for file in verdicts]


def count_looks(out: Path) -> int:
    """How many versions of the settings have been looked up, this one among them."""
    file = out / "looks.json"
    looks = read_json(file) if file.is_file() else []
    looks += [settings()] if settings() not in looks else []
    write_json(file, looks)
    return len(looks)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/nas_bench_201"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--controls", type=int, default=0, help="seeds of each control")
    parser.add_argument(
        "--searches", nargs="+", default=list(SEARCHES), choices=list(SEARCHES), help="beside the default"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--so_far", action="store_true", help="run nothing, report on what is there")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # what a process of this script is to do
    options = parser.parse_args()
    if options.worker:
        WORK[options.worker[0]](options.out, int(options.worker[1]))
        return
    if options.table is None or (options.images is None and not options.so_far):
        parser.error("--images and --table are needed (--so_far: --table)")
    if not options.so_far:
        run(options)
    found = found_cells(options)
    if OURS not in found:
        parser.error(f"--so_far: not all of the {options.seeds} seeds of '{OURS}' are there")
    print(f"version {settings()} of the settings: look number {count_looks(options.out)} at the table")
    report(Benchmark(options.table), found, OURS, judged(options))


if __name__ == "__main__":
    main()
