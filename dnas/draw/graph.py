"""Pictures of networks: SVG, PNG and PDF by Graphviz's `dot` where it is, else by matplotlib; DOT, GraphML and JSON.

Colour is a node's share of the MACs, an orange frame attention, a red one a difference, the width of a line the
probability of the option that it leads to; all of them are written as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import graphviz
import networkx as nx

from dnas.draw.plain import NodeLook, draw_plain
from dnas.draw.style import BLUE, GREY, INK, ORANGE, PAPER, RED, SKY, blend
from dnas.errors import UserError, printable
from dnas.run.files import replace_file, void, write_text
from dnas.space.graph import Graph, plain_graph

FORMATS = (".svg", ".png", ".pdf", ".dot", ".graphml", ".json")
NEUTRAL = "#EEEEEE"
OPEN = "#DCEAF5"
DEEPEST = 0.6
"""How much blue the node with the largest share of the MACs has; text on it stays readable."""


def draw_graph(network: Graph[int], title: str, file: Path) -> None:
    """Draw a network graph (`dnas.space.graph`) into a picture (.svg, .png, .pdf), or write it (.dot, .graphml, .json).

    Raises:
        UserError: another file ending.
    """
    if file.suffix not in FORMATS:
        raise UserError(f"{file}: cannot draw '{file.suffix}', allowed: {', '.join(FORMATS)}")
    if file.suffix == ".json":
        write_text(file, json.dumps(plain_graph(network), indent=1) + "\n")
    elif file.suffix == ".graphml":
        text = "\n".join(nx.generate_graphml(_without_control(network)))
        write_text(file, text + "\n")
    elif file.suffix == ".dot":
        write_text(file, _dot(network, title).source)
    else:
        picture = picture_of(network, title, file.suffix[1:])
        replace_file(file, lambda stream: void(stream.write(picture)))


def picture_of(network: Graph[int], title: str, kind: str) -> bytes:
    """The picture as a file of that kind: svg, png or pdf."""
    looks = _looks(network)
    if shutil.which("dot"):
        dot = _dot(network, title)
        if kind == "png":  # in an SVG it would scale the drawing out of its frame
            dot.attr("graph", dpi="110")
        found: bytes = dot.pipe(format=kind)
        return found
    keys = {node: network.nodes[node]["key"] for node in looks}
    shown = {node: (*([printable(keys[node])] if keys[node] else []), *look.lines) for node, look in looks.items()}
    widths = {(a, b): 0.8 * _line_width(data) for a, b, data in network.edges(data=True)}
    return draw_plain(network, looks, shown, widths, _title(title), kind)


def _without_control(network: Graph[int]) -> Graph[int]:
    """XML has no control characters."""
    found: Graph[int] = network.copy()
    for _, node in found.nodes(data=True):
        node.update({key: printable(value) if isinstance(value, str) else value for key, value in node.items()})
    return found


def _looks(network: Graph[int]) -> dict[int, NodeLook]:
    kinds = ("operation", "attention")
    closed = all("macs" in data for _, data in network.nodes(data=True) if data["kind"] in kinds)
    spent = {node: data.get("macs", 0) * data["count"] * closed for node, data in network.nodes(data=True)}
    sides: dict[int, int] = {}
    for node, data in network.nodes(data=True):
        sides[data.get("side", 0)] = sides.get(data.get("side", 0), 0) + spent[node]
    most = max((spent[node] / max(sides[data.get("side", 0)], 1) for node, data in network.nodes(data=True)), default=0)
    found = {}
    for node, data in network.nodes(data=True):
        share = spent[node] / max(sides[data.get("side", 0)], 1)
        fill = NEUTRAL if data["kind"] in ("input", "embedding") else PAPER if data["kind"] == "sum" else OPEN
        if data["kind"] in kinds and closed:
            fill = blend(PAPER, BLUE, DEEPEST * share / max(most, 1e-9))
        border = RED if data.get("differs") else ORANGE if data["kind"] == "attention" else GREY
        thick = bool(data.get("differs")) or data["kind"] == "attention"
        found[node] = NodeLook(_lines(data, share if closed else None), fill, border, thick, data["kind"] == "sum")
    return found


def _lines(node: Mapping[str, Any], share: float | None) -> tuple[str, ...]:
    """The text in a node: operation, output shape, MACs and their share of the network's."""
    times = f"{node['count']} x " if node["count"] > 1 else ""
    lines = [f"{times}{node['title']}", str(node["shape"])]
    if node.get("macs"):
        lines.append(f"{times}{count(node['macs'])} MACs" + ("" if share is None else f", {share:.0%}"))
    if "weight" in node:
        lines.append(f"probability {node['weight']:.2f}")
    if node.get("differs"):
        lines.append("differs")
    return tuple(printable(line) for line in lines)


def count(number: float) -> str:
    """A count for people: 12.3 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def _title(text: str) -> list[str]:
    return [printable(line) for line in text.split("\n")]


def _line_width(edge: Mapping[str, Any]) -> float:
    return 0.4 + 4.6 * float(edge["weight"]) if "weight" in edge else 1.0


def _dot(network: Graph[int], title: str) -> graphviz.Digraph:
    dot = graphviz.Digraph()
    graph_look = {"labelloc": "t", "fontname": "Helvetica", "fontsize": "16", "rankdir": "TB", "nodesep": "0.25"}
    dot.attr(
        "graph",
        label="\n".join(graphviz.escape(line) for line in _title(title)),
        ranksep="0.3",
        **graph_look,
    )
    dot.attr("node", shape="box", style="rounded,filled", fontname="Helvetica", fontsize="11", margin="0.12,0.06")
    dot.attr("edge", color=INK, arrowsize="0.6")
    groups: dict[str, list[int]] = {}
    for number, node in network.nodes(data=True):
        groups.setdefault(node["group"], []).append(number)
    looks = _looks(network)
    for index, (name, members) in enumerate(groups.items()):
        with dot.subgraph(name=f"cluster_{index}" if name else None) as cluster:
            if name:
                label = graphviz.escape(printable(name))
                frame = {"color": SKY, "style": "rounded", "fontname": "Helvetica", "fontcolor": BLUE}
                cluster.attr(label=label, fontsize="12", labeljust="l", **frame)
            for number in members:
                node, look = network.nodes[number], looks[number]
                lines = ((f"[{printable(node['key'])}]",) if node["key"] else ()) + look.lines
                shape = {"shape": "ellipse", "style": "filled"} if look.round else {}
                cluster.node(
                    str(number),
                    label="\n".join(graphviz.escape(line) for line in lines),
                    fillcolor=look.fill,
                    color=look.border,
                    penwidth="2.5" if look.thick else "1",
                    **shape,
                )
    for tail, head, data in network.edges(data=True):
        dot.edge(str(tail), str(head), penwidth=f"{_line_width(data):.2f}")
    return dot
