"""Pictures of networks: DOT text always; SVG and PNG by Graphviz's `dot` where it is, else by matplotlib."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import graphviz
import matplotlib.pyplot as plt
import networkx as nx

from dnas.draw.style import BLUE, GREY, INK, ORANGE, PAPER, SKY, style
from dnas.errors import UserError
from dnas.run.files import replace_file, void, write_text

FORMATS = (".svg", ".png", ".dot")
FILL = {"input": "#EEEEEE", "embedding": "#EEEEEE", "operation": "#DCEAF5", "attention": ORANGE, "sum": PAPER}

LOOK = {"attention": {"penwidth": "2", "color": INK}, "sum": {"shape": "ellipse", "style": "filled"}}


def draw_graph(network: nx.DiGraph[int], title: str, file: Path) -> None:
    """Draw a network graph (`dnas.space.graph`) into an .svg, .png or .dot file.

    Raises:
        UserError: another file ending.
    """
    if file.suffix not in FORMATS:
        raise UserError(f"{file}: cannot draw '{file.suffix}', allowed: {', '.join(FORMATS)}")
    dot = _dot(network, title)
    if file.suffix == ".dot":
        write_text(file, dot.source)
    elif shutil.which("dot"):
        picture = dot.pipe(format=file.suffix[1:])
        replace_file(file, lambda stream: void(stream.write(picture)))
    else:
        _matplotlib(network, title, file)


def _lines(node: dict[str, Any]) -> list[str]:
    """The text in a node: operation, output shape, MACs."""
    lines = [str(node["title"]), str(node["shape"])]
    if node.get("macs"):
        lines.append(f"{count(node['macs'])} MACs")
    return lines


def count(number: float) -> str:
    """A count for people: 12.3 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def _dot(network: nx.DiGraph[int], title: str) -> graphviz.Digraph:
    dot = graphviz.Digraph()
    dot.attr(
        "graph",
        label=graphviz.escape(title),
        labelloc="t",
        fontname="Helvetica",
        fontsize="16",
        rankdir="TB",
        nodesep="0.25",
        ranksep="0.3",
        dpi="110",
    )
    dot.attr(
        "node", shape="box", style="rounded,filled", fontname="Helvetica", fontsize="11", color=GREY, margin="0.12,0.06"
    )
    dot.attr("edge", color=INK, arrowsize="0.6")
    groups: dict[str, list[int]] = {}
    for number, node in network.nodes(data=True):
        groups.setdefault(node["group"], []).append(number)
    for index, (name, members) in enumerate(groups.items()):
        with dot.subgraph(name=f"cluster_{index}" if name else None) as cluster:
            if name:
                cluster.attr(
                    label=graphviz.escape(name),
                    color=SKY,
                    style="rounded",
                    fontname="Helvetica",
                    fontcolor=BLUE,
                    fontsize="12",
                    labeljust="l",
                )
            for number in members:
                node = network.nodes[number]
                look = LOOK.get(node["kind"], {})
                lines = ([f"[{node['key']}]"] if node["key"] else []) + _lines(node)
                cluster.node(
                    str(number),
                    label="\n".join(graphviz.escape(line) for line in lines),
                    fillcolor=FILL[node["kind"]],
                    **look,
                )
    for tail, head in network.edges:
        dot.edge(str(tail), str(head))
    return dot


def _matplotlib(network: nx.DiGraph[int], title: str, file: Path) -> None:
    """A layered drawing without Graphviz: one row per topological generation."""
    rows = [sorted(row) for row in nx.topological_generations(network)]
    widest = max(len(row) for row in rows)
    place = {
        node: ((k + 0.5) * widest / len(row), -float(depth))
        for depth, row in enumerate(rows)
        for k, node in enumerate(row)
    }
    with style():
        figure, axes = plt.subplots(figsize=(max(4.5, 2.3 * widest), 0.78 * len(rows) + 0.6))
        axes.set_axis_off()
        axes.set_title(title)
        axes.set_xlim(0, widest)
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        for tail, head in network.edges:
            (x0, y0), (x1, y1) = place[tail], place[head]
            axes.annotate("", (x1, y1 + 0.3), (x0, y0 - 0.3), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 0.8})
        for number, node in network.nodes(data=True):
            x, y = place[number]
            first, *rest = _lines(node)
            box = {
                "boxstyle": "round,pad=0.3",
                "facecolor": FILL[node["kind"]],
                "edgecolor": INK if node["kind"] == "attention" else GREY,
            }
            text = f"{node['group']}: {first}" if node["group"] and not node["key"] else first
            axes.text(
                x,
                y,
                "\n".join([text, "  ".join(rest)]),
                ha="center",
                va="center",
                fontsize=8,
                color=INK,
                bbox=box,
                backgroundcolor=PAPER,
            )
        replace_file(file, lambda stream: figure.savefig(stream, format=file.suffix[1:]))
        plt.close(figure)
