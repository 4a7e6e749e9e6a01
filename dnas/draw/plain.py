"""The drawing of a network graph by matplotlib, where Graphviz is not: boxes and arrows where `layout` puts them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from dnas.draw.layout import LABEL, Layout, Size, lay_out
from dnas.draw.style import BLUE, INK, SKY, style
from dnas.errors import printable
from dnas.space.graph import Graph

FONT, TITLE, PAD, MARGIN = 7.0, 10.0, 0.05, 0.2
"""Points of the text, and inches around text and page."""
LINE = FONT * 1.25 / 72


@dataclass(frozen=True)
class NodeLook:
    """How a node is drawn."""

    lines: tuple[str, ...]
    fill: str
    border: str
    thick: bool
    round: bool


def draw_plain(
    network: Graph[int], looks: Mapping[int, NodeLook], lines: Mapping[int, Sequence[str]],
    widths: Mapping[tuple[int, int], float], title: Sequence[str], kind: str,
) -> bytes:  # fmt: skip
    """The picture as a file of that kind (svg, png or pdf).

    Args:
        looks: of the boxes; lines: text in them.
        widths: of the arrows, in points.
        title: its lines.
    """
    with style():
        measure = RendererAgg(72, 72, 72)
        lines = {node: [*text, *_sources(network, node, ())] for node, text in lines.items()}
        layout = lay_out(network, {node: _size(text, measure) for node, text in lines.items()})
        if layout.folded:  # what comes from another column is written into the box
            told: dict[int, list[int]] = {}
            for tail, node in layout.folded:
                told.setdefault(node, []).append(tail)
            lines = {node: [*text, *_sources(network, node, told.get(node, ()))] for node, text in lines.items()}
            layout = lay_out(network, {node: _size(text, measure) for node, text in lines.items()})
        sizes = {node: _size(text, measure) for node, text in lines.items()}
        head = TITLE * 1.35 / 72 * len(title) + 0.1
        wide = max([layout.size[0], *(_width(line, TITLE, measure) for line in title)]) + 2 * MARGIN
        high = layout.size[1] + head + 2 * MARGIN
        figure = plt.figure(figsize=(wide, high))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        left = (wide - layout.size[0]) / 2
        axes.set_xlim(-left, wide - left)
        axes.set_ylim(high - head - MARGIN, -head - MARGIN)
        axes.text(
            wide / 2 - left, -head, "\n".join(_plain(line) for line in title), ha="center", va="top", fontsize=TITLE
        )
        _frames(axes, layout)
        for edge, route in layout.routes.items():
            path = _smooth(route)
            arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 7, "color": INK, "lw": widths[edge]}
            axes.add_patch(FancyArrowPatch(path=path, joinstyle="miter", capstyle="butt", zorder=2, **arrow))
        for node, look in looks.items():
            (x, y), (w, h) = layout.centres[node], sizes[node]
            corner = min(h, w) / (2 if look.round else 8)
            box = FancyBboxPatch(
                (x - w / 2, y - h / 2), w, h, boxstyle=f"round,pad=0,rounding_size={corner}",
                facecolor=look.fill, edgecolor=look.border, linewidth=1.8 if look.thick else 0.8, zorder=3,
            )  # fmt: skip
            axes.add_patch(box)
            text = "\n".join(_plain(line) for line in lines[node])
            axes.text(x, y, text, ha="center", va="center", fontsize=FONT, linespacing=1.2, zorder=4)
        stream = io.BytesIO()
        figure.savefig(
            stream, format=kind, bbox_inches=None, metadata={"CreationDate": None} if kind == "pdf" else None
        )
        plt.close(figure)
    return stream.getvalue()


def _sources(network: Graph[int], node: int, tails: Sequence[int]) -> list[str]:
    """Where edges come from that are written, not drawn."""
    names = [network.nodes[tail] for tail in tails]
    return [printable("from " + ", ".join(filter(None, (tail["group"], tail["title"])))) for tail in names]


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # not a formula


def _width(text: str, size: float, measure: RendererAgg) -> float:
    return float(measure.get_text_width_height_descent(_plain(text), FontProperties(size=size), False)[0]) / 72


def _size(lines: Sequence[str], measure: RendererAgg) -> Size:
    return max(_width(line, FONT, measure) for line in lines) + 4 * PAD, LINE * len(lines) + 2 * PAD


def _smooth(route: Sequence[tuple[float, float]]) -> Path:
    """A curve through the points that leaves and arrives upright; three straight corners where it goes around."""
    points, codes = [route[0]], [Path.MOVETO]
    upward = any(b[1] < a[1] for a, b in itertools.pairwise(route))
    for (x0, y0), (x1, y1) in itertools.pairwise(route):
        if upward or abs(x1 - x0) < 0.01:
            points.append((x1, y1))
            codes.append(Path.LINETO)
        else:
            middle = (y0 + y1) / 2
            points += [(x0, middle), (x1, middle), (x1, y1)]
            codes += [Path.CURVE4] * 3
    return Path(points, codes)


def _frames(axes: Any, layout: Layout) -> None:
    """A frame around every group, with its name."""
    for name, x0, y0, x1, y1 in layout.frames:
        frame = FancyBboxPatch(
            (x0 - 0.06, y0 - LABEL + 0.04), x1 - x0 + 0.12, y1 - y0 + LABEL + 0.02,
            boxstyle="round,pad=0,rounding_size=0.05", facecolor="none", edgecolor=SKY, linewidth=0.8, zorder=1,
        )  # fmt: skip
        axes.add_patch(frame)
        axes.text(x0, y0 - LABEL + 0.09, _plain(printable(name)), va="top", fontsize=FONT, color=BLUE, zorder=4,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})  # fmt: skip
