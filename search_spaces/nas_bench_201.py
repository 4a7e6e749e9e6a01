"""`nas_bench_201`: the cell space of the benchmark NAS-Bench-201 (Dong and Yang, arXiv 2001.00326), 15,625 cells.

A cell has an input and three nodes, an edge from every earlier state, one of five operations on each of the six edges.
All cells of a network are alike. Networks: a stem of `channels`, three stages of `cells` cells with a residual
block that halves the resolution between them. `nas_bench_201_small`: one cell a stage, half the resolution.
`nas_bench_201_proxy`: two cells a stage, half the resolution, and a pointwise convolution in place of each residual
block: what a small network can do is then up to its cells.

The benchmark names a cell by a string: "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...~0|...~1|...~2|", for every node
the operations of its edges with the state that each comes from.
"""

from __future__ import annotations

import re

from dnas.errors import UserError
from dnas.nn.cell_operations import NormConv, Pool, Zero
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.nn.dense_cell import DenseCell, NormReLU, ResidualReduction
from dnas.space.spec import Choice, Choices, OneOf, Space, Spec

OPERATIONS: dict[str, Spec] = {
    "none": Zero(),
    "skip_connect": Skip(),
    "nor_conv_1x1": NormConv(),
    "nor_conv_3x3": NormConv(kernel=3),
    "avg_pool_3x3": Pool("avg", norm=False),
}
NODES = 3


def edge_key(source: int, node: int) -> str:
    """The decision of the edge between two states."""
    return f"cell.node{node}.from{source}"


def cell_string(choices: Choices) -> str:
    """The benchmark's name of a cell."""
    nodes = (
        "|".join(f"{choices[edge_key(source, node)]}~{source}" for source in range(node))
        for node in range(1, NODES + 1)
    )
    return "+".join(f"|{node}|" for node in nodes)


def read_cell(text: str) -> dict[str, Choice]:
    """The choices of a cell by its name.

    Raises:
        UserError: not the name of a cell of this space.
    """
    nodes = re.findall(r"\|([^+]*)\|(?:\+|$)", text)
    choices: dict[str, Choice] = {}
    for node, edges in enumerate(nodes, start=1):
        for edge in edges.split("|"):
            name, _, source = edge.partition("~")
            if name not in OPERATIONS:
                raise UserError(f"cell: found operation '{name}', allowed: {', '.join(OPERATIONS)}")
            choices[edge_key(int(source), node) if source.isdigit() else source] = name
    wanted = {edge_key(source, node) for node in range(1, NODES + 1) for source in range(node)}
    if set(choices) != wanted or cell_string(choices) != text:
        raise UserError(f"cell: found '{text}', allowed: names such as '{cell_string(dict.fromkeys(wanted, 'none'))}'")
    return choices


def nas_bench_201(
    name: str = "nas_bench_201", channels: int = 16, cells: int = 5, side: int = 32, residual: bool = True
) -> Space:
    """The space with `cells` cells a stage, for square images.

    Args:
        residual: whether a residual block halves the resolution; else a pointwise convolution of stride 2.
    """
    cell = DenseCell(
        tuple(
            tuple(OneOf(edge_key(source, node), OPERATIONS) for source in range(node)) for node in range(1, NODES + 1)
        )
    )
    parts: list[Spec] = [ConvNormAct(channels, activation=False)]
    for stage in range(1, 4):
        if stage > 1:
            width = channels * 2 ** (stage - 1)
            parts.append(
                ResidualReduction(width) if residual else ConvNormAct(width, kernel=1, stride=2, activation=False)
            )
        parts.append(Chain((cell,) * cells, name=f"stage{stage}", stage=stage))
    return Space(name, Chain((*parts, NormReLU())), side, side, f"NAS-Bench-201: {cells} cells a stage, 5 operations")
