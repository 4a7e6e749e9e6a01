"""What attention does: maps over the pictures, and which channels are selected or weighted, by identity and camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dnas.draw.style import AROUND, HEAT, INK, PAPER, PROBABILITY, label, style

Numbers = NDArray[np.float64]
MOST_CHANNELS = 256
MOST_IDENTITIES = 40


@dataclass(frozen=True)
class Maps:
    """Maps of one column of pictures, such as a site of attention in a run.

    Args:
        title: what they are.
        maps: one (H, W) for each picture, of any size and range.
        token: row and column (0 to 1) of the middle of the position that looks, if one does.
    """

    title: str
    maps: Sequence[Numbers]
    token: tuple[float, float] | None = None


def draw_maps(pictures: Sequence[NDArray[np.uint8]], names: Sequence[str], columns: Sequence[Maps]) -> Figure:
    """One row a picture: the picture, then every map over it (bright: much; each from its own least to its most)."""
    h, w = pictures[0].shape[:2]
    with style():
        size = (1.5 * (1 + len(columns)), (1.5 * h / w + 0.1) * len(pictures) + 0.6)
        figure, grid = plt.subplots(len(pictures), 1 + len(columns), figsize=size, squeeze=False, layout="constrained")
        for number, (line, picture, name) in enumerate(zip(grid, pictures, names, strict=True)):
            _bare(line[0], picture, name)
            for axes, column in zip(line[1:], columns, strict=True):
                _bare(axes, picture.mean(2) * 0.6 + 60, column.title if number == 0 else "", grey=True)
                found = column.maps[number]
                spread = max(float(np.max(found) - np.min(found)), 1e-12)
                axes.imshow(
                    (found - np.min(found)) / spread, cmap=HEAT, alpha=0.55, extent=(-0.5, w - 0.5, h - 0.5, -0.5),
                    interpolation="bilinear", vmin=0, vmax=1,
                )  # fmt: skip
                if column.token is not None:
                    row, col = column.token
                    axes.plot(col * w, row * h, "+", color=PAPER, markersize=11, markeredgewidth=3)
                    axes.plot(col * w, row * h, "+", color=INK, markersize=9, markeredgewidth=1.2)
    return figure


def _bare(axes: Axes, picture: NDArray[np.uint8] | Numbers, title: str, grey: bool = False) -> None:
    axes.imshow(picture, cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.grid(visible=False)
    axes.set_axis_off()
    axes.set_title("\n".join(part for line in title.split("\n") for part in wrap(label(line), 22)), fontsize=7)


@dataclass(frozen=True)
class ChannelUse:
    """What a site of attention does with every channel of every image.

    Args:
        site: its name.
        use_NC: share of the positions at which a channel is selected (DCS), its gate (1: as it is), or how much of a
            channel is its own (channel self-attention).
        gates: whether it is a gate, of 0 to 2.
        word: what the numbers are called.
        places_HW: share of the channels selected at each place, the mean over the images, where there are places.
    """

    site: str
    use_NC: Numbers
    gates: bool
    word: str = "share selected"
    places_HW: Numbers | None = None


def draw_channels(sites: Sequence[ChannelUse], pids: NDArray[np.int64], camids: NDArray[np.int64]) -> Figure:
    """One row a site: by channel, by identity and channel, by camera, and by place where channels are selected."""
    widths = [3, 5, 2, 2] if any(site.places_HW is not None for site in sites) else [3, 5, 2]
    with style():
        figure, grid = plt.subplots(
            len(sites), len(widths), figsize=(sum(widths) * 1.2, 2.9 * len(sites)), squeeze=False, layout="constrained",
            gridspec_kw={"width_ratios": widths},
        )  # fmt: skip
        for line, site in zip(grid, sites, strict=True):
            _site(line, site, pids, camids)
    return figure


def _site(line: Sequence[Axes], site: ChannelUse, pids: NDArray[np.int64], camids: NDArray[np.int64]) -> None:
    use_NC, word = site.use_NC, site.word
    top, limits = (2.0, (0.0, 2.0)) if site.gates else (1.0, (0.0, 1.0))
    left, middle, right, *rest = line
    mean_C = use_NC.mean(0)
    order = np.argsort(-mean_C)
    shown_C = order[np.linspace(0, len(order) - 1, min(len(order), MOST_CHANNELS)).astype(int)]
    every = "" if len(shown_C) == len(order) else f" ({len(shown_C)} of {len(order)})"
    left.bar(np.arange(len(shown_C)), mean_C[shown_C], width=1.0)
    left.axhline(float(mean_C.mean()), color=INK, linewidth=1, linestyle="--", label=f"mean {mean_C.mean():.2f}")
    left.set(title=site.site, xlabel=f"channel, in order{every}", ylabel=word, ylim=(0, top * 1.02))
    left.legend(loc="lower left", frameon=True)
    shown = np.unique(pids[pids != 0])[:MOST_IDENTITIES]
    table = np.stack([use_NC[pids == pid].mean(0)[shown_C] for pid in shown])
    image = middle.imshow(
        table, aspect="auto", interpolation="nearest", cmap=AROUND if site.gates else PROBABILITY,
        vmin=limits[0], vmax=limits[1],
    )  # fmt: skip
    middle.grid(visible=False)
    middle.set(title="by identity", xlabel="channel, in the same order", ylabel="identity, in order")
    plt.colorbar(image, ax=middle, label=word)
    cameras = np.unique(camids)
    values = [use_NC[camids == camera].mean() for camera in cameras]
    deviations = [use_NC[camids == camera].mean(1).std() for camera in cameras]
    right.bar(range(len(cameras)), values, yerr=deviations, ecolor=INK, capsize=3)
    right.set_xticks(range(len(cameras)), [str(camera) for camera in cameras])
    right.set(title="by camera", xlabel="camera", ylabel=f"mean {word} ± sd", ylim=(0, top * 1.02))
    for last in rest:
        _places(last, site.places_HW)


def _places(axes: Axes, places_HW: Numbers | None) -> None:
    """From the least to the most: places differ by less than channels do."""
    axes.set_axis_off()
    if places_HW is None:
        return
    image = axes.imshow(places_HW, cmap=PROBABILITY, interpolation="nearest")
    axes.grid(visible=False)
    axes.set(title="by place")
    plt.colorbar(image, ax=axes, label="share of the channels")
