"""What the table of NAS-Bench-201 says of the cells that `nas_bench_201.py` found."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dnas.eval.correlation import spearman

RANDOM = (8, 12, 14, 16, 20, 32, 60)
"""Cells of a random search that are asked about."""
GDAS = 93.6
"""Test accuracy of the cells of GDAS, as published."""


class Benchmark:
    """The table: test accuracy after 200 epochs and validation accuracy after 12 of every cell, in percent."""

    def __init__(self, file: Path) -> None:
        with file.open() as stream:
            rows = list(csv.DictReader(stream))
        self.long = {row["cell"]: float(row["cifar10_test_accuracy_200_epochs"]) for row in rows}
        self.short = {row["cell"]: float(row["cifar10_valid_accuracy_12_epochs"]) for row in rows}
        self.ordered = np.sort(list(self.long.values()))

    def beaten(self, accuracy: float) -> float:
        """The share of all cells below it, %."""
        return 100 * float(np.searchsorted(self.ordered, accuracy)) / len(self.ordered)


def difference(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Mean of one minus mean of the other with a 95 % interval: seeds resampled within each."""
    rng, rounds = np.random.default_rng(0), 10_000
    a, b = np.array(one), np.array(other)
    drawn = rng.choice(a, (rounds, len(a))).mean(1) - rng.choice(b, (rounds, len(b))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(a.mean() - b.mean()), float(low), float(high)


def report(
    benchmark: Benchmark,
    found: Mapping[str, Sequence[str]],
    against: str,
    judged: tuple[Sequence[Mapping[str, Any]], Sequence[Sequence[float]]] | None,
) -> None:
    """Print tables, and all of it as JSON in the last line.

    Args:
        found: the cells of every variant, a seed each.
        against: the variant that the others are held against.
        judged: random cells with the scores of their own trainings, and those that every supernet gave them.
    """
    console = Console(width=150)
    table = Table(title="CIFAR-10 by NAS-Bench-201")
    for title in (
        "variant",
        "test, 200 epochs",
        "of the seeds",
        "regret",
        "beats",
        "validation, 12",
        f"{against} - this",
    ):
        table.add_column(title)
    best = max(benchmark.long.values())
    ours = [benchmark.long[cell] for cell in found[against]]
    rows: dict[str, object] = {}
    for variant, cells in found.items():
        values = [benchmark.long[cell] for cell in cells]
        gain, low, high = difference(ours, values)
        table.add_row(
            variant, f"{mean(values):.2f}", " ".join(f"{v:.1f}" for v in values), f"{best - mean(values):.2f}",
            f"{mean(benchmark.beaten(v) for v in values):.0f} %", f"{mean(benchmark.short[c] for c in cells):.2f}",
            "" if variant == against else f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]",
        )  # fmt: skip
        rows[variant] = {"cells": cells, "test": values, f"{against}_minus": [gain, low, high]}
    table.add_row("the best there is", f"{best:.2f}", "", "0.00", "100 %", "", "")
    table.add_row(
        "GDAS, as published", f"{GDAS:.2f}", "", f"{best - GDAS:.2f}", f"{benchmark.beaten(GDAS):.0f} %", "", ""
    )
    console.print(table)
    if judged is not None:
        rows["correlations"] = correlations(benchmark, *judged, console)
        rows["best_of"] = random_search(benchmark, judged[0], console)
    print(json.dumps(rows))


def random_search(benchmark: Benchmark, bank: Sequence[Mapping[str, Any]], console: Console) -> dict[int, float]:
    """What a random search of so many cells finds, each trained shortly: means over draws from the bank.

    The interval is that of the mean (the bank resampled), the range that of single searches.
    """
    rng, size = np.random.default_rng(0), len(bank)
    bank_N2 = np.array([(benchmark.long[one["cell"]], one["score"]) for one in bank])

    def best_of(count: int, among_N2: np.ndarray, rounds: int) -> np.ndarray:
        drawn = rng.permuted(np.tile(np.arange(size), (rounds, 1)), axis=1)[:, :count]
        chosen = drawn[np.arange(rounds), among_N2[drawn, 1].argmax(1)]
        return np.asarray(among_N2[chosen, 0])

    table = Table(title=f"the best of random cells by short trainings, drawn from {size}")
    for title in ("cells", "mean", "95 % interval", "5 to 95 % of searches", "minutes of training"):
        table.add_column(title)
    found = {}
    for count in (n for n in RANDOM if n <= size):
        values = best_of(count, bank_N2, 10_000)
        means = [best_of(count, bank_N2[rng.integers(size, size=size)], 200).mean() for _ in range(1000)]
        (low, high), (worst, best) = np.quantile(means, [0.025, 0.975]), np.quantile(values, [0.05, 0.95])
        minutes = count * mean(one["seconds"] for one in bank) / 60
        intervals = f"{low:.2f} to {high:.2f}", f"{worst:.1f} to {best:.1f}"
        table.add_row(str(count), f"{values.mean():.2f}", *intervals, f"{minutes:.0f}")
        found[count] = float(values.mean())
    console.print(table)
    return found


def correlations(
    benchmark: Benchmark, bank: Sequence[Mapping[str, Any]], verdicts: Sequence[Sequence[float]], console: Console
) -> dict[str, list[float]]:
    """Supernet with short trainings, short trainings with the table, supernet with the table."""
    truth, alone = [benchmark.long[one["cell"]] for one in bank], [one["score"] for one in bank]
    everything = range(len(bank))
    better = [n for n in everything if truth[n] >= median(truth)]
    table = Table(
        title=f"Spearman correlations over {len(bank)} random cells; of the supernet: mean over {len(verdicts)} seeds"
    )
    for title in ("", "all", "better half"):
        table.add_column(title)
    found: dict[str, list[float]] = {}
    for name, one, other in (
        ("supernet with short trainings", None, alone), ("short trainings with the table", alone, truth),
        ("supernet with the table", None, truth),
    ):  # fmt: skip
        cells, values = [], []
        for which in (everything, better):
            several = [
                spearman([v[n] for n in which], [other[n] for n in which]) for v in (verdicts if one is None else [one])
            ]
            values.append(mean(c.value for c in several))
            cells.append(str(several[0]) if one is not None else f"{values[-1]:+.2f}")
        table.add_row(name, *cells)
        found[name] = values
    console.print(table)
    return found
