"""A search as it moves: the probabilities of every choice, and how far it has come. From the rows of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from dnas.draw.style import GREY, INK, style
from dnas.errors import UserError
from dnas.eval.measure import RETRIEVAL, Measure

Rows = Sequence[Mapping[str, Any]]
COLUMNS = 3
MOST_STRIPS = 120
"""Choices in one picture; more are too many to look at."""
UNITS = {"macs": ("MACs", 1e-6, "M"), "params": ("parameters", 1e-3, "k"), "latency": ("latency", 1.0, "ms")}


def draw_choices(rows: Rows, options: Mapping[str, Sequence[object]], found: Mapping[str, object]) -> Figure:
    """One strip per choice: a row for every option, epochs from left to right, bright where it is probable.

    Where the network was derived by what options add to verdicts, that is a column of its own after the last epoch.

    Args:
        options: the options of every choice, by its key.
        found: the options of the derived network, in bold; where that is not known those that are ahead.

    Raises:
        UserError: no epoch is logged yet.
    """
    if not rows:
        raise UserError("search: no epoch is logged yet")
    keys = list(rows[-1]["probabilities"])[:MOST_STRIPS]
    by_options = rows[-1].get("options", {}).get("logits", {})
    lines = -(-len(keys) // COLUMNS)
    tallest = [max(len(rows[-1]["probabilities"][key]) for key in keys[n::lines]) for n in range(lines)]
    with style():
        figure, grid = plt.subplots(
            lines, COLUMNS, squeeze=False, layout="constrained",
            figsize=(10.5, 0.6 + sum(0.42 + 0.17 * count for count in tallest)),
            gridspec_kw={"height_ratios": [0.42 + 0.17 * count for count in tallest]},
        )  # fmt: skip
        image = None
        for axes, key in zip(grid.T.flat, keys, strict=False):
            table_KE = np.array([row["probabilities"][key] for row in rows]).T
            image, last_K = _strip(axes, table_KE, 0.5, len(rows) + 0.5), table_KE[:, -1]
            if key in by_options:
                last_K = np.exp(by_options[key] - np.logaddexp.reduce(by_options[key]))
                _strip(axes, last_K[:, None], 0.5 + 1.02 * len(rows), 0.5 + 1.1 * len(rows))
                axes.set_xlim(0.5, 0.5 + 1.1 * len(rows))
            axes.grid(visible=False)
            names = [str(option) for option in options.get(key, range(len(table_KE)))]
            taken = names.index(str(found[key])) if str(found.get(key)) in names else int(last_K.argmax())
            axes.set_yticks(range(len(names)), names, fontsize=7)
            axes.get_yticklabels()[taken].set_fontweight("bold")
            axes.set_title(f"{key}: {names[taken]} ({last_K[taken]:.0%})", fontsize=8, loc="left")
            axes.set_xticks(_whole(len(rows)))
            axes.tick_params(axis="x", labelsize=7)
        for axes in grid.T.flat[len(keys) :]:
            axes.set_axis_off()
        for axes in grid[-1]:
            axes.set_xlabel("epoch; right: by options" if by_options else "epoch", fontsize=8)
        if image is not None:
            bar = figure.colorbar(image, ax=grid, shrink=min(1.0, 3 / figure.get_figheight()), pad=0.01)
            bar.set_label("probability")
    return figure


def _strip(axes: Axes, table_KE: np.ndarray, left: float, right: float) -> AxesImage:
    extent = (left, right, len(table_KE) - 0.5, -0.5)
    return axes.imshow(table_KE, aspect="auto", vmin=0, vmax=1, extent=extent, interpolation="nearest")


def _whole(epochs: int) -> list[float]:
    """Some of the epochs, as ticks."""
    return [at for at in MaxNLocator(6, integer=True).tick_values(1, epochs) if 1 <= at <= epochs]


def draw_course(rows: Rows, measure: Measure = RETRIEVAL) -> Figure:
    """Losses, entropy, temperature, expected against target cost, held-out accuracy and information over the epochs.

    Raises:
        UserError: no epoch is logged yet.
    """
    if not rows:
        raise UserError("search: no epoch is logged yet")
    with style():
        figure, grid = plt.subplots(2, 3, figsize=(11.5, 6.2), layout="constrained")
        _losses(grid[0, 0], rows)
        _entropy(grid[0, 1], rows)
        _cost(grid[0, 2], rows)
        _line(grid[1, 0], rows, {"of the draws": ("temperature",), "of DCS masks": ("mask_temperature",)})
        grid[1, 0].set(title="temperature", yscale="log", ylabel="temperature (log scale)")
        held = {"derived network": ("held_out", measure.key), "supernet": ("held_out_supernet", measure.key)}
        _line(grid[1, 1], rows, held, 100)
        grid[1, 1].set(title=f"held-out {measure.unseen}", ylabel=f"{measure.name} (%)")
        draw_information(grid[1, 2], rows)
        for axes in grid.flat:
            axes.set_xlabel("epoch")
            if axes.get_yscale() == "log":
                for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                    which(lambda value, _: f"{value:g}")
    return figure


def value_at(row: Mapping[str, Any], path: Sequence[str]) -> float:
    """A number in nested dictionaries; NaN where it is not there."""
    found: Any = row
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else math.nan


def _line(axes: Axes, rows: Rows, series: Mapping[str, Sequence[str]], factor: float = 1.0) -> None:
    for name, path in series.items():
        points = [(row["epoch"] + 1, factor * value_at(row, path)) for row in rows]
        points = [(x, y) for x, y in points if math.isfinite(y)]
        if points:
            marker = "o" if len(points) < 20 else None
            axes.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3.5)
    if axes.lines:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", color=GREY, transform=axes.transAxes)


def _losses(axes: Axes, rows: Rows) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row["loss"]))
    _line(axes, rows, {name.replace("_", " "): ("loss", name) for name in names})
    axes.set(title="loss terms", ylabel="value (id, ibb: nats)", yscale="log")


def _entropy(axes: Axes, rows: Rows) -> None:
    epochs = [row["epoch"] + 1 for row in rows]
    values_EH = np.array([list(row["entropy"].values()) for row in rows])
    axes.fill_between(epochs, values_EH.min(1), values_EH.max(1), alpha=0.25, label="all choices", linewidth=0)
    axes.plot(epochs, values_EH.mean(1), label="mean")
    axes.set(title="entropy of the choices", ylabel="share of the uniform choice's", ylim=(-0.03, 1.03))
    axes.legend()


def _cost(axes: Axes, rows: Rows) -> None:
    kind = str(rows[-1].get("budget", "macs"))
    name, factor, unit = UNITS.get(kind, UNITS["macs"])
    key = "expected_latency_ms" if kind == "latency" else f"expected_{kind}"
    _line(axes, rows, {"expected": (key,)}, factor)
    target = rows[-1].get("target")
    if isinstance(target, int | float):
        value = target / 1e6 if kind == "latency" else target * factor
        axes.axhline(value, color=INK, linestyle="--", linewidth=1, label="budget")
        axes.legend()
    axes.set(title=f"expected {name}", ylabel=f"{name} ({unit})")


def draw_information(axes: Axes, rows: Rows) -> None:
    """IB and its bounds on training and held-out identities."""
    kinds = (("IB", "-"), ("tight bound", ":"), ("paper bound + H(X)", "--"))
    for part in ("train", "held_out"):
        colour = f"C{part == 'held_out':d}"
        for kind, dashes in kinds:
            points = [(row["epoch"] + 1, value_at(row, ("information", part, kind))) for row in rows]
            points = [(x, y) for x, y in points if math.isfinite(y)]
            if points:
                label = f"{kind}, {part.replace('_', '-')}"
                axes.plot(*zip(*points, strict=True), dashes, color=colour, label=label)
    if axes.lines:
        axes.legend(fontsize=7, handlelength=3.2, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", color=GREY, transform=axes.transAxes)
    axes.set(title="information bottleneck and bounds", ylabel="log(identities)")
