"""One look for every picture: a colour-blind-safe palette (Okabe and Ito) and matplotlib settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import matplotlib
from cycler import cycler
from matplotlib import RcParams, font_manager

from dnas.errors import printable

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, INK, PAPER, GREY = "#56B4E9", "#D55E00", "#F0E442", "#222222", "#FFFFFF", "#8A8A8A"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, RED, INK, YELLOW)
PROBABILITY, HEAT, AROUND = "viridis", "inferno", "PuOr_r"
"""Colour maps: of shares and probabilities, over photographs, and of what goes up and down from a middle."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


FONTS = (
    "DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Hiragino Sans", "PingFang SC",
    "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Noto Sans", "Noto Sans Arabic",
    "Noto Sans Devanagari", "Arial Unicode MS", "Symbola",
)  # fmt: skip
"""Tried for every letter in this order, as far as they are installed: names of people and places are in any script."""


@lru_cache
def fonts() -> list[str]:
    """Those of `FONTS` that are here; the first is matplotlib's own."""
    here = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in here]


@contextmanager
def style() -> Iterator[RcParams]:
    """Use the look inside a `with` block, without a display; the settings may be changed there."""
    matplotlib.use("Agg")
    settings = {
        "axes.grid": True, "axes.axisbelow": True, "grid.color": GREY, "grid.alpha": 0.3, "grid.linewidth": 0.6,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "font.size": 10,
        "font.family": fonts(), "pdf.fonttype": 42,
        "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10,
        "figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight", "svg.fonttype": "path", "svg.hashsalt": "dnas",
        "axes.prop_cycle": cycler(color=list(SERIES)), "image.cmap": PROBABILITY, "figure.max_open_warning": 0,
        "legend.frameon": False, "legend.fontsize": 8,
    }  # fmt: skip
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        yield matplotlib.rcParams


def label(name: str) -> str:
    """A name in a figure: matplotlib takes $ for formulas, and keeps names with a leading underscore out of legends."""
    text = printable(name).replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def blend(low: str, high: str, share: float) -> str:
    """The colour between two of them."""
    parts = ((int(low[k : k + 2], 16), int(high[k : k + 2], 16)) for k in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02X}" for a, b in parts)
