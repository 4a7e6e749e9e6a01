"""Retrainings as they went: losses, accuracy on what is held out, information; one colour a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dnas.draw.search import Rows, draw_information, value_at
from dnas.draw.style import GREY, SERIES, label, style
from dnas.errors import UserError
from dnas.eval.measure import RETRIEVAL, Measure


def draw_training(runs: Mapping[str, Rows], measure: Measure = RETRIEVAL) -> Figure:
    """Each loss term, the accuracy on what is held out, and the information of the first run that has measured it.

    Raises:
        UserError: no epoch is logged yet.
    """
    terms = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row["loss"]))
    if not terms:
        raise UserError("retrain: no epoch is logged yet")
    measured = next((rows for rows in runs.values() if any("information" in row for row in rows)), ())
    panels = len(terms) + 2
    with style():
        figure, grid = plt.subplots(
            -(-panels // 3), 3, figsize=(11.5, 3.1 * -(-panels // 3)), layout="constrained", squeeze=False
        )
        flat = list(grid.flat)
        for axes, term in zip(flat, terms, strict=False):
            _lines(axes, runs, ("loss", term))
            unit = "nats" if term in ("id", "ibb") else "value of the term"
            axes.set(title=f"loss: {term.replace('_', ' ')}", ylabel=unit)
        _lines(flat[len(terms)], runs, ("held_out", measure.key), 100)
        flat[len(terms)].set(title=f"held-out {measure.unseen}", ylabel=f"{measure.name} (%)")
        draw_information(flat[len(terms) + 1], measured)
        for axes in flat[:panels]:
            axes.set_xlabel("epoch")
        for axes in flat[panels:]:
            axes.set_axis_off()
        handles, names = flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def _lines(axes: Axes, runs: Mapping[str, Rows], path: tuple[str, ...], factor: float = 1.0) -> None:
    for index, (name, rows) in enumerate(runs.items()):
        points = [(row["epoch"] + 1, factor * value_at(row, path)) for row in rows]
        points = [(x, y) for x, y in points if math.isfinite(y)]
        if points:
            axes.plot(*zip(*points, strict=True), color=SERIES[index % len(SERIES)], label=label(name))
    if not axes.lines:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", color=GREY, transform=axes.transAxes)
