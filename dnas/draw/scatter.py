"""Accuracy over cost of several models, with their spread over seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from dnas.draw.figures import check_format, save
from dnas.draw.style import GREY, MARKERS, SERIES, label, style
from dnas.eval.measure import RETRIEVAL, Measure

WIDEST = 80
"""Letters in a line of the legend."""


@dataclass(frozen=True)
class Point:
    """One model: cost and accuracy of each of its runs."""

    name: str
    macs: Sequence[float]
    accuracy: Sequence[float]


def _front(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """The Pareto front of the means as steps: MACs (millions) and accuracy (%)."""
    means = sorted((sum(p.macs) / len(p.macs) / 1e6, 100 * sum(p.accuracy) / len(p.accuracy)) for p in points)
    xs: list[float] = []
    ys: list[float] = []
    for x, y in means:
        if not ys or y > ys[-1]:
            xs += [x, x] if ys else [x]
            ys += [ys[-1], y] if ys else [y]
    return [*xs, means[-1][0]], [*ys, ys[-1]]


def draw_scatter(points: Sequence[Point], file: Path, measure: Measure = RETRIEVAL) -> None:
    """`scatter` into a file.

    Raises:
        UserError: a file ending other than .svg or .png.
    """
    check_format(file)
    save(scatter(points, measure), file)


def scatter(points: Sequence[Point], measure: Measure = RETRIEVAL) -> Figure:
    """Accuracy (%) over MACs (log scale): small marks runs, large ones means, lines ranges, dashed the Pareto front."""
    with style():
        rows = [textwrap.wrap(label(point.name), WIDEST) for point in points]
        below = 0.2 * (1 + sum(len(row) for row in rows))  # inches of the legend, which no corner has room for
        figure, axes = plt.subplots(figsize=(6.4, 3.9 + below), layout="constrained")
        for index, (point, row) in enumerate(zip(points, rows, strict=True)):
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            macs = [value / 1e6 for value in point.macs]
            accuracy = [100 * value for value in point.accuracy]
            x, y = sum(macs) / len(macs), sum(accuracy) / len(accuracy)
            axes.plot(macs, accuracy, marker, color=colour, alpha=0.4, markersize=5)
            axes.vlines(x, min(accuracy), max(accuracy), color=colour, linewidth=1.2)
            axes.plot([x], [y], marker, color=colour, markersize=10, label="\n".join(row) + f" (n = {len(accuracy)})")
        axes.plot(*_front(points), color=GREY, linewidth=1, linestyle="--", zorder=0, label="best at its cost or less")
        every = [100 * value for point in points for value in point.accuracy]
        spread = max(every) - min(every)
        spare = max(0.5, 0.05 * spread, (5 - spread) / 2)  # at least five points: small gaps look small
        axes.set_ylim(min(every) - spare, max(every) + spare)
        axes.set_xscale("log")
        costs = [value / 1e6 for point in points for value in point.macs]
        middle, half = (min(costs) * max(costs)) ** 0.5, max((max(costs) / min(costs)) ** 0.5 * 1.1, 1.5)
        axes.set_xlim(middle / half, middle * half)  # at least a factor of two: small differences look small
        axes.set_xlabel("multiply-accumulates of one image (millions, log scale)")
        axes.set_ylabel(f"{measure.name} on {measure.tested} (%)")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
        wide = half**2 > 4
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)) if wide else NullLocator())  # more would touch
        if not wide:
            axes.xaxis.set_major_locator(MaxNLocator(6))  # the powers of ten are too few
        figure.legend(loc="outside lower left")
    return figure
