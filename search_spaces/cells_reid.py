"""`cells_reid`: normal and reduction cells as directed graphs (DARTS, arXiv 1806.09055), with attention on the edges.

4 nodes a cell, each on two earlier states. `cells_reid_tiny` is the same for images of about 64 pixels.
"""

from __future__ import annotations

from itertools import combinations

from dnas.nn.attention import ATTENTION
from dnas.nn.cell import Cell, CellStack, Node
from dnas.nn.cell_operations import HalfThen, NormConv, Pool, SeparableConv, Zero
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.space.spec import OneOf, Pair, Space, Spec

CELLS = ("dcs", "se", "channel")
NODES = 4


def operations(stride: int, cells: tuple[str, ...] = CELLS) -> dict[str, Spec]:
    """What an edge can be."""
    found: dict[str, Spec] = {
        "zero": Zero(stride),
        "skip": Skip() if stride == 1 else NormConv(stride=stride),
        "max_pool": Pool("max", stride),
        "avg_pool": Pool("avg", stride),
        "sep_3": SeparableConv(3, stride),
        "sep_5": SeparableConv(5, stride),
        "dil_3": SeparableConv(3, stride, dilation=2, times=1),
        "dil_5": SeparableConv(5, stride, dilation=2, times=1),
    }
    return found | {name: ATTENTION[name] if stride == 1 else HalfThen(ATTENTION[name]) for name in cells}


def cell(name: str, reduction: bool) -> Cell:
    """An open cell: for every node which two states feed it, for every edge which operation."""
    nodes = []
    for node in range(NODES):
        states = range(node + 2)
        pairs = {f"{a}+{b}": Pair((a, b)) for a, b in combinations(states, 2)}
        edges = tuple(
            OneOf(f"{name}.node{node + 2}.from{s}", operations(2 if reduction and s < 2 else 1)) for s in states
        )
        inputs = OneOf(f"{name}.node{node + 2}.inputs", pairs) if len(pairs) > 1 else Pair((0, 1))
        nodes.append(Node(inputs, edges))
    return Cell(tuple(nodes))


def cells_reid(name: str, stem: tuple[int, ...], plan: str, width: int, head: int, height: int) -> Space:
    """`stem`: channels of convolutions with stride 2 before the cells."""
    before = tuple(ConvNormAct(channels, kernel=3, stride=2) for channels in stem)
    stack = CellStack(cell("normal", False), cell("reduction", True), plan, width)
    spec = Chain((*before, stack, ConvNormAct(head, kernel=1)))
    return Space(name, spec, height, height // 2, f"cells {plan} as graphs; attention: {', '.join(CELLS)}")
