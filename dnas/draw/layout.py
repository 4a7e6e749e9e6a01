"""Where the boxes of a network drawing go, without Graphviz: a layered layout, folded into columns where it is long.

Layers, dummies for edges that pass layers, barycentre sweeps against crossings, as in Sugiyama, Tagawa and Toda,
"Methods for visual understanding of hierarchical system structures" (1981). Lengths are inches, y points down.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from dnas.space.graph import Graph

Point = tuple[float, float]
Size = tuple[float, float]
Edge = tuple[int, int]
Cell = Hashable
"""What stands in a layer: a node, or (tail, head, layer) where an edge passes."""

GAP_X, GAP_Y, LABEL, GUTTER, CORNER, OVER = 0.16, 0.3, 0.24, 0.55, 0.12, 0.03
"""Between boxes, between layers, above the first layer of a group, between columns; from a box to the next corner,
from a frame to the line over it."""
SWEEPS = 12
TALLEST = 1.35
"""Height over width from which a drawing is folded, where it can be."""
THROUGH = 2
"""It can be folded between two layers if the edges that cross come from no more nodes than these."""


@dataclass(frozen=True)
class Layout:
    """A drawing's geometry.

    Args:
        centres: of the boxes.
        routes: points of every edge that is drawn, from the bottom of a box to the top of another.
        folded: edges between columns that are not drawn, but written at their head.
        frames: name, left, top, right and bottom of every group in every column.
        size: of the page.
    """

    centres: dict[int, Point]
    routes: dict[Edge, list[Point]]
    folded: list[Edge]
    frames: list[tuple[str, float, float, float, float]]
    size: Size


def lay_out(network: Graph[int], sizes: Mapping[int, Size]) -> Layout:
    """Lay out a network graph; networks beside one another (`side`) keep their sides.

    Args:
        sizes: width and height of every node's box.
    """
    sides = sorted({data.get("side", 0) for _, data in network.nodes(data=True)})
    found = []
    for side in sides:
        own = network.subgraph(node for node, data in network.nodes(data=True) if data.get("side", 0) == side)
        found.append(_fold(own, sizes, wide=len(sides) == 1))
    whole, left = found[0], found[0].size[0]
    for one in found[1:]:
        whole = _beside(whole, _moved(one, left + GUTTER))
        left = whole.size[0]
    return whole


def layers(network: Graph[int]) -> list[list[int]]:
    """Nodes by layer: below all that feed them, and below the groups that are traced before theirs."""
    depth: dict[int, int] = {}
    floor, group = 0, None
    for node in sorted(network):
        if network.nodes[node]["group"] != group:
            group, floor = network.nodes[node]["group"], 1 + max(depth.values(), default=-1)
        before = [depth[source] + 1 for source in network.predecessors(node)]
        depth[node] = max([*before, floor if before else 0])
    rows: list[list[int]] = [[] for _ in range(1 + max(depth.values()))]
    for node, row in depth.items():
        rows[row].append(node)
    return [row for row in rows if row]


def _fold(network: Graph[int], sizes: Mapping[int, Size], wide: bool) -> Layout:
    """One column, or as many as bring the page near to its proportions."""
    rows = layers(network)
    best = _columns(network, rows, sizes, [])
    cuts = _cuts(network, rows) if wide else []
    for count in range(2, len(cuts) + 2):
        if best.size[1] <= TALLEST * best.size[0]:
            break
        other = _columns(network, rows, sizes, _even(cuts, rows, sizes, count))
        if other.size[1] < 0.8 * best.size[1]:
            best = other
    return best


def _cuts(network: Graph[int], rows: Sequence[Sequence[int]]) -> list[int]:
    """Layers before which a column may end: few edges cross there; at the ends of groups, if there are such layers."""
    at = {node: k for k, row in enumerate(rows) for node in row}
    crossing = [{a for a, b in network.edges if at[a] < k <= at[b]} for k in range(len(rows))]
    whole = [crossing[k] <= {*rows[k - 1]} for k in range(1, len(rows))]  # nothing passes a layer: one line for all
    found = [k for k in range(1, len(rows)) if len(crossing[k]) <= THROUGH or whole[k - 1]]
    groups = [{network.nodes[node]["group"] for node in row} for row in rows]
    return [k for k in found if groups[k - 1] != groups[k]] or found


def _even(cuts: Sequence[int], rows: Sequence[Sequence[int]], sizes: Mapping[int, Size], count: int) -> list[int]:
    """The cuts that make `count` columns about equally tall."""
    ends = list(itertools.accumulate(max(sizes[node][1] for node in row) + GAP_Y for row in rows))
    wanted = [ends[-1] * part / count for part in range(1, count)]
    return sorted({min(cuts, key=lambda cut: abs(ends[cut - 1] - height)) for height in wanted})


def _columns(network: Graph[int], rows: Sequence[list[int]], sizes: Mapping[int, Size], cuts: Sequence[int]) -> Layout:
    """Layers in columns that begin at `cuts`. Edges to the next column go around it; others are written."""
    at = {node: k for k, row in enumerate(rows) for node in row}
    whole, gutters = _column(network, rows[: cuts[0] if cuts else None], sizes), []
    for first, last in itertools.pairwise([*cuts, len(rows)]):
        gutters.append(whole.size[0] + GUTTER / 2)
        whole = _beside(whole, _moved(_column(network, rows[first:last], sizes), whole.size[0] + GUTTER))
    for a, b in network.edges:
        if at[b] in cuts and at[a] == at[b] - 1:
            (x0, y0), (x1, y1) = whole.centres[a], whole.centres[b]
            below, above, gutter = y0 + sizes[a][1] / 2, y1 - sizes[b][1] / 2, gutters[cuts.index(at[b])]
            named = any(network.nodes[node]["group"] for node in rows[at[b]])
            over = above - (LABEL + OVER if named else CORNER)  # above a frame and its name
            corners = [(x0, below + CORNER), (gutter, below + CORNER), (gutter, over), (x1, over)]
            whole.routes[(a, b)] = [(x0, below), *corners, (x1, above)]
        elif (a, b) not in whole.routes:
            whole.folded.append((a, b))
    return whole


def _column(network: Graph[int], rows: Sequence[list[int]], sizes: Mapping[int, Size]) -> Layout:
    """Layers from top to bottom, without folding."""
    at = {node: k for k, row in enumerate(rows) for node in row}
    inside = [(a, b) for a, b in network.edges if a in at and b in at]
    order: list[list[Cell]] = [list(row) for row in rows]
    up: dict[Cell, list[Cell]] = {}
    chains: dict[Edge, list[Cell]] = {}
    for a, b in inside:
        passing: list[Cell] = [(a, b, k) for k in range(at[a] + 1, at[b])]
        for cell in passing:
            order[cell[2]].append(cell)  # type: ignore[index]
        chains[(a, b)] = [a, *passing, b]
        for before, after in itertools.pairwise(chains[(a, b)]):
            up.setdefault(after, []).append(before)
    down: dict[Cell, list[Cell]] = {}
    for after, all_before in up.items():
        for before in all_before:
            down.setdefault(before, []).append(after)
    width: dict[Cell, float] = {
        cell: sizes[cell][0] if isinstance(cell, int) else 0.05 for row in order for cell in row
    }
    x = _across(order, up, down, width)
    left = min(x[cell] - width[cell] / 2 for cell in x)
    y, tops = 0.0, []
    group = None
    for row in rows:
        first = {network.nodes[node]["group"] for node in row}
        y += LABEL if first != {group} and any(first) else 0.0
        group = next(iter(first)) if len(first) == 1 else None
        tops.append(y)
        y += max(sizes[node][1] for node in row) + GAP_Y
    middle = [top + max(sizes[node][1] for node in row) / 2 for top, row in zip(tops, rows, strict=True)]
    centres = {node: (x[node] - left, middle[at[node]]) for node in at}
    routes = {}
    for (a, b), chain in chains.items():
        through = [(x[cell] - left, middle[cell[2]]) for cell in chain[1:-1]]  # type: ignore[index]
        start = (centres[a][0], centres[a][1] + sizes[a][1] / 2)
        routes[(a, b)] = [start, *through, (centres[b][0], centres[b][1] - sizes[b][1] / 2)]
    right = max(x[cell] + width[cell] / 2 for cell in x) - left
    return Layout(centres, routes, [], _frames(network, centres, sizes), (right, y - GAP_Y))


def _frames(
    network: Graph[int], centres: Mapping[int, Point], sizes: Mapping[int, Size]
) -> list[tuple[str, float, float, float, float]]:
    members: dict[str, list[int]] = {}
    for node in centres:
        if name := network.nodes[node]["group"]:
            members.setdefault(name, []).append(node)
    found = []
    for name, nodes in members.items():
        boxes = [(*centres[node], *sizes[node]) for node in nodes]
        left, right = min(x - w / 2 for x, _, w, _ in boxes), max(x + w / 2 for x, _, w, _ in boxes)
        top, bottom = min(y - h / 2 for _, y, _, h in boxes), max(y + h / 2 for _, y, _, h in boxes)
        found.append((name, left, top, right, bottom))
    return found


def _across(
    order: list[list[Cell]],
    up: Mapping[Cell, Sequence[Cell]],
    down: Mapping[Cell, Sequence[Cell]],
    width: Mapping[Cell, float],
) -> dict[Cell, float]:
    """Order the cells of every layer by the mean place of their neighbours, and give each a place."""
    x: dict[Cell, float] = {}
    for row in order:
        _pack(row, [float(k) for k in range(len(row))], width, x)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for row in order if downwards else reversed(order):
            sides = up if downwards else down
            wanted = {cell: _mean([x[other] for other in sides.get(cell, ())], x[cell]) for cell in row}
            if sweep < SWEEPS - 4:  # the order settles before the places do
                row.sort(key=wanted.__getitem__)
            _pack(row, [wanted[cell] for cell in row], width, x)
    return x


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _pack(row: Sequence[Cell], wanted: Sequence[float], width: Mapping[Cell, float], x: dict[Cell, float]) -> None:
    """Places as near to those wanted as boxes that do not touch allow: the mean of pushing right and pushing left."""
    apart = [(width[a] + width[b]) / 2 + GAP_X for a, b in itertools.pairwise(row)]
    pushed, pulled = list(wanted), list(wanted)
    for k, gap in enumerate(apart):
        pushed[k + 1] = max(pushed[k + 1], pushed[k] + gap)
    for k in range(len(apart) - 1, -1, -1):
        pulled[k] = min(pulled[k], pulled[k + 1] - apart[k])
    for cell, one, other in zip(row, pushed, pulled, strict=True):
        x[cell] = (one + other) / 2


def _moved(one: Layout, dx: float) -> Layout:
    def point(p: Point) -> Point:
        return p[0] + dx, p[1]

    return Layout(
        {node: point(p) for node, p in one.centres.items()},
        {edge: [point(p) for p in route] for edge, route in one.routes.items()},
        one.folded,
        [(name, a + dx, b, c + dx, d) for name, a, b, c, d in one.frames],
        (one.size[0] + dx, one.size[1]),
    )


def _beside(one: Layout, other: Layout) -> Layout:
    return Layout(
        one.centres | other.centres,
        one.routes | other.routes,
        one.folded + other.folded,
        one.frames + other.frames,
        (max(one.size[0], other.size[0]), max(one.size[1], other.size[1])),
    )
