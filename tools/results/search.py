"""Searched networks among random ones of the same space and cost (docs/results/search.md).

    python tools/results/search.py run ROOT OUT --space tiny_reid --budget 14M [--workers 2] [-- search options ...]
    python tools/results/search.py report OUT [OUT ...] -o docs/results/search.png

`run`: 3 searches (seeds 0 to 2), 20 networks drawn uniformly among those that cost 93 to 100 % of the budget, and all
of them retrained alike, with two seeds each; finished runs are not run again. `report`: where the searched ones stand.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import f_oneway

from dnas.draw.style import BLUE, GREY, INK, style
from dnas.run.folder import RunFolder
from dnas.search.config import ArchConfig, BudgetConfig
from dnas.search.estimators import ESTIMATORS
from dnas.space.genotype import Genotype
from dnas.space.spec import decisions
from search_spaces import named_space

SEARCHES, RANDOMS, LEAST = 3, 20, 0.93
MODES = tuple(ESTIMATORS)
SEARCH = ["--optim.lr", "0.003", "--eval_every", "10"]
RETRAIN = ["--optim.lr", "0.003"]


def dnas(verb: str, out: Path, finished: str, words: list[str]) -> None:
    """Run a verb in a folder, go on with it, or leave it if it is finished. One thread: workers run side by side."""
    if (out / finished).is_file():
        return
    resume = ["--resume", str(out)] if (out / "config.yaml").is_file() else ["--out", str(out), *words]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-m", "dnas.cli", verb, *resume]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)


def random_networks(name: str, size: tuple[int, int], budget: float) -> list[Genotype]:
    """Uniform over the networks whose cost is in the window, by rejection."""
    space = named_space(name).resized(*size)
    known, count = decisions(space.spec), space.spec.cost(space.input).macs
    rng = random.Random(0)
    found: list[Genotype] = []
    while len(found) < RANDOMS:
        index = {key: rng.randrange(len(decision.options)) for key, decision in known.items()}
        if LEAST * budget <= count.at(index) <= budget:
            found.append(Genotype.of(space, {key: known[key].options[k] for key, k in index.items()}))
    return found


def run(options: argparse.Namespace) -> None:
    out, common = Path(options.out), ["--data", options.root, "--device", "cpu"]
    size = ["--input.height", str(options.size[0]), "--input.width", str(options.size[1])]
    common += size + (["--input.flip", "0"] if options.letters else [])
    epochs = [["--optim.epochs", str(count)] for count in options.epochs]
    for number, genotype in enumerate(random_networks(options.space, tuple(options.size), options.limit)):
        genotype.save(out / f"network-{number}" / "genotype.json")
    found = ["--space", options.space, "--budget.macs", options.budget, *common, *SEARCH, *epochs[0], *options.search]

    def searched(seed: int) -> None:
        folder = out / f"search-{options.mode}-{seed}"
        dnas("search", folder, "cost.json", [*found, "--arch.mode", options.mode, "--seed", str(seed)])
        retrained(folder, f"searched-{options.mode}-{seed}")

    def drawn(number: int) -> None:
        retrained(out / f"network-{number}", f"random-{number}")

    def retrained(genotype: Path, name: str) -> None:
        for seed in range(options.seeds):
            words = [*common, *RETRAIN, *epochs[1], "--genotype", str(genotype), "--seed", str(seed)]
            dnas("retrain", out / (f"{name}-seed{seed}" if seed else name), "summary.json", words)

    with ThreadPoolExecutor(options.workers) as pool:
        jobs = [pool.submit(searched, seed) for seed in range(SEARCHES)]
        jobs += [pool.submit(drawn, number) for number in range(RANDOMS)] if not options.only_searches else []
        for job in jobs:
            job.result()


def results(out: Path, kind: str) -> list[tuple[float, list[float]]]:
    """MACs of every network of a kind, and the mAP of its finished retrainings, one a seed."""
    found = []
    for first in sorted(out.glob(f"{kind}-[0-9]*")):
        if "-seed" in first.name:
            continue
        runs = [RunFolder.open(f.parent) for f in sorted(out.glob(f"{first.name}/summary.json"))]
        runs += [RunFolder.open(f.parent) for f in sorted(out.glob(f"{first.name}-seed*/summary.json"))]
        if runs:
            maps = [100 * run.json("summary.json")["test"]["mAP"] for run in runs]
            found.append((runs[0].json("cost.json")["macs"], maps))
    return found


def between_networks(networks: list[list[float]]) -> tuple[float, float]:
    """One-way analysis of variance: how large F is, and how often it is as large where networks do not differ."""
    found = f_oneway(*networks)
    return float(found.statistic), float(found.pvalue)


def difference(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Mean of a minus mean of b with a 95 % interval: networks resampled within each group."""
    rng = np.random.default_rng(0)
    resampled = [rng.choice(values, (10_000, len(values))).mean(1) for values in (np.array(a), np.array(b))]
    low, high = np.percentile(resampled[0] - resampled[1], [2.5, 97.5])
    return mean(a) - mean(b), float(low), float(high)


def report(options: argparse.Namespace) -> None:
    table = Table(title="mAP (%) of searched and random networks of one space and cost")
    for title in (
        "space",
        "budget",
        "searched",
        "MACs",
        "random (networks)",
        "best random",
        "difference",
        "random ones below",
    ):
        table.add_column(title)
    rows = []
    for out, mode in ((Path(out), mode) for out in options.out for mode in MODES):
        searched, drawn = results(out, f"searched-{mode}"), results(out, "random")
        if not searched or len(drawn) < 2:
            continue
        searched.sort(key=lambda found: mean(found[1]))
        config = RunFolder.open(out / f"search-{mode}-0").config()
        ours, theirs = [mean(m) for _, m in searched], [mean(m) for _, m in drawn]
        gain, low, high = difference(ours, theirs)
        below = sum(a > b for a in ours for b in theirs) / (len(ours) * len(theirs))
        data = RunFolder.open(out / f"search-{mode}-0").json("data.json")
        apart = "" if config["arch"].get("share", True) else ", weights apart"
        arch, epochs = config["arch"], config["optim"]["epochs"]
        prior = f", prior {arch['prior']}" if arch.get("prior") else ""
        by_options = ", by options" if arch.get("samples") and arch.get("samples_from") == "uniform" else ""
        if prior and (arch["weights_only"] or 0) * epochs > epochs - 1 and not by_options:
            prior += " alone"  # no epoch trained the logits
        name = f"{config['space']}, {data['name']}, {mode}{prior}{by_options}{apart}"
        seeds = min(len(maps) for _, maps in drawn + searched)
        if seeds > 1:
            name += f", {seeds} seeds"
            f, p = between_networks([maps for _, maps in drawn])
            print(f"{name}: do the random networks differ at all? F = {f:.2f}, p = {p:.2f}")
        rows.append({"name": name, "searched": ours, "random": theirs, "gain": gain, "low": low, "high": high})
        table.add_row(
            name, str(config["budget"]["macs"]), " ".join(f"{m:.1f}" for m in ours),
            " ".join(f"{c / 1e6:.1f}" for c, _ in searched),
            f"{mean(theirs):.1f} ± {stdev(theirs):.1f} ({len(theirs)})",
            f"{max(theirs):.1f}", f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]", f"{below:.0%}",
        )  # fmt: skip
    Console(width=160).print(table)
    print(json.dumps(rows))
    if options.output:
        draw(rows, Path(options.output))


def draw(rows: list[dict[str, object]], file: Path) -> None:
    """Each space a row of dots: random networks grey, searched ones blue."""
    with style():
        figure, axes = plt.subplots(figsize=(7.5, 0.75 * len(rows) + 1.3))
        for place, row in enumerate(rows):
            offsets = np.linspace(-0.16, 0.16, RANDOMS)
            for values, colour, marker, label in (
                (row["random"], GREY, "o", "random, same space and cost"),
                (row["searched"], BLUE, "D", "searched"),
            ):
                assert isinstance(values, list)
                ys = place + (offsets[: len(values)] if colour == GREY else np.zeros(len(values)))
                axes.scatter(values, ys, c=colour, marker=marker, s=34, alpha=0.85, label=None if place else label)
                axes.plot([mean(values)] * 2, [place - 0.3, place + 0.3], color=colour, lw=1.6)
        axes.set_yticks(range(len(rows)), [str(row["name"]).replace(", ", "\n", 1) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("mAP on query and gallery (%); bars: means", color=INK)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.35 / len(rows)), ncols=2, frameon=False)
        figure.savefig(file)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run", epilog="Further options of dnas search: at the end, after --.")
    runs.add_argument("root")
    runs.add_argument("out")
    runs.add_argument("--space", required=True)
    runs.add_argument("--budget", required=True, help="MACs, such as 14M")
    runs.add_argument("--size", type=int, nargs=2, default=(64, 64), help="height and width of the images")
    runs.add_argument("--epochs", type=int, nargs=2, default=(30, 24), help="of a search, of a retraining")
    runs.add_argument("--seeds", type=int, default=2, help="retrainings of every network")
    runs.add_argument("--letters", action="store_true", help="do not mirror images")
    runs.add_argument("--mode", default=ArchConfig().mode, choices=MODES, help="estimator of the search")
    runs.add_argument("--workers", type=int, default=2)
    runs.add_argument("--only-searches", action="store_true")
    reports = verbs.add_parser("report")
    reports.add_argument("out", nargs="+")
    reports.add_argument("-o", "--output")
    own, further = sys.argv[1:], []
    if "--" in own:  # argparse gives what follows to no list of positionals that it has passed already
        own, further = own[: own.index("--")], own[own.index("--") + 1 :]
    options = parser.parse_args(own)
    if options.verb == "run":
        options.search = further
        options.limit = BudgetConfig(macs=options.budget).limit
        run(options)
    else:
        report(options)


if __name__ == "__main__":
    main()
