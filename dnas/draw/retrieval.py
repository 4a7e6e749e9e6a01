"""What retrieval does: ranked lists, CMC curves, distances of same and other identities, the embedding in a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dnas.draw.style import BLUE, GREY, INK, MARKERS, RED, SERIES, label, style

Pixels = NDArray[np.uint8]
MOST_RANKS = 50
COLOURED = 12
"""Identities with a colour of their own."""


@dataclass(frozen=True)
class Hit:
    """An image of a ranked list: pixels (H, W, 3), distance, camera if known, and whether it is the right identity."""

    pixels: Pixels
    distance: float
    camera: int | None
    right: bool


@dataclass(frozen=True)
class RankedList:
    """A query with what was found for it, nearest first."""

    pixels: Pixels
    title: str
    hits: Sequence[Hit]


def draw_ranked(lists: Sequence[RankedList]) -> Figure:
    """One row a query; right answers have a blue frame and a tick, wrong ones a red, dashed frame and a cross."""
    columns = 1 + max(len(one.hits) for one in lists)
    h, w = lists[0].pixels.shape[:2]
    with style():
        size = (1.05 * columns, (1.05 * h / w + 0.42) * len(lists))
        figure, grid = plt.subplots(len(lists), columns, figsize=size, squeeze=False, layout="constrained")
        for line, one in zip(grid, lists, strict=True):
            _picture(line[0], one.pixels, one.title, INK, "-", 1.0)
            for rank, axes in enumerate(line[1:]):
                if rank >= len(one.hits):
                    axes.set_axis_off()
                    continue
                hit = one.hits[rank]
                sign, colour, dashes = ("✓", BLUE, "-") if hit.right else ("✗", RED, (0, (4, 2)))
                camera = f"\ncamera {hit.camera}" if hit.camera is not None else ""
                _picture(axes, hit.pixels, f"{sign} {hit.distance:.3f}{camera}", colour, dashes, 2.5)
    return figure


def _picture(axes: Axes, pixels: Pixels, title: str, colour: str, dashes: object, width: float) -> None:
    axes.imshow(pixels)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=7, color=INK)
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=width, linestyle=dashes)


def draw_cmc(first_matches: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Share of the queries with a match among the first k, of several runs.

    Args:
        first_matches: rank of the first match of every query (NaN: it has none), by the name of the run.
    """
    with style():
        figure, axes = plt.subplots(figsize=(6.4, 4.0))
        ranks = np.arange(1, MOST_RANKS + 1)
        for index, (name, first) in enumerate(first_matches.items()):
            valid = first[~np.isnan(first)]
            share = 100 * np.searchsorted(np.sort(valid), ranks, side="right") / max(len(valid), 1)
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            every = [0, 4, 9, 19, 49]
            axes.plot(ranks, share, color=colour, marker=marker, markersize=4, markevery=every, label=label(name))
        axes.set(xscale="log", xlabel="rank k (log scale)", ylabel="queries with a match among the first k (%)")
        axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axes.minorticks_off()
        axes.set_ylim(top=101)
        axes.legend(loc="lower right")
    return figure


def draw_distances(
    same: NDArray[np.float64], different: NDArray[np.float64], what: str, pairs: str = "across cameras"
) -> Figure:
    """Histograms of the distances of pairs of the same and of different identities.

    Args:
        what: name of the distance.
        pairs: which pairs, in words.
    """
    with style():
        figure, axes = plt.subplots(figsize=(6.4, 3.4))
        low, high = (float(choose([choose(same), choose(different)])) for choose in (np.min, np.max))
        bins = np.linspace(low, high, 61).tolist()
        for name, values, colour, hatch in (
            ("same identity", same, BLUE, None), ("different identities", different, RED, "////"),
        ):  # fmt: skip
            label = f"{name} ({len(values):,} pairs, mean {values.mean():.3f})"
            axes.hist(values, bins, density=True, alpha=0.55, color=colour, label=label, hatch=hatch, linewidth=0)
        axes.set(xlabel=f"{what} distance, {pairs}", ylabel="density of pairs")
        axes.legend()
    return figure


def draw_plane(
    places_N2: NDArray[np.float64], pids: NDArray[np.int64], camids: NDArray[np.int64] | None, how: str
) -> Figure:
    """The embedding in a plane, coloured by identity (the most frequent ones; others grey) and by camera.

    Args:
        camids: none where they are not known.
        how: by which method, for the title.
    """
    with style():
        values, counts = np.unique(pids, return_counts=True)
        shown = values[np.argsort(-counts, kind="stable")[:COLOURED]]
        rest = ~np.isin(pids, shown)
        panels = [(pids, shown, "identity")] + ([(camids, np.unique(camids), "camera")] if camids is not None else [])
        size = (5.5 * len(panels), 5.2)
        figure, grid = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
        grid[0, 0].plot(*places_N2[rest].T, ".", color=GREY, alpha=0.35, markersize=3, label="others")
        for axes, (labels, chosen, word) in zip(grid[0], panels, strict=True):
            for index, value in enumerate(chosen.tolist()):
                colour = SERIES[index % len(SERIES)]
                marker = MARKERS[(index + index // len(SERIES)) % len(MARKERS)]
                axes.plot(
                    *places_N2[labels == value].T, marker, color=colour, markersize=4, label=str(value), alpha=0.8
                )
            axes.set(title=f"{how}, by {word}", xticks=[], yticks=[])
            axes.set_xlabel(f"{how}, first direction (no unit)")
            axes.set_ylabel("second direction (no unit)")
            axes.legend(title=word, fontsize=7, markerscale=1.2, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
