"""Cells as directed graphs (DARTS, arXiv 1806.09055), stacked: normal cells and cells that halve the resolution.

A cell's states are its two inputs (the outputs of the two cells before it) and its nodes. A node is the sum of
two edges from earlier states; which two is a choice between pairs, and every edge has an operation of its own. The
nodes side by side are the cell's output. All cells of one kind share their decisions.

Shapes: B batch, C channels of a node, H W.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dnas.nn.cell_operations import NormConv
from dnas.space.cost import Condition
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Composite, Leaf, OneOf, Pair, Spec


@dataclass(frozen=True)
class Node:
    """The sum of two edges. `inputs`: the pair of earlier states; `edges`: an operation for every earlier state."""

    inputs: OneOf | Pair
    edges: tuple[Spec, ...]

    def sources(self) -> list[tuple[int, tuple[Condition, ...]]]:
        """States that may feed this node, and when they do."""
        if isinstance(self.inputs, Pair):
            return [(state, ()) for state in self.inputs.states]
        pairs = [pair.states for pair in self.inputs.options.values() if isinstance(pair, Pair)]
        return [
            (state, (Condition(self.inputs.key, tuple(k for k, p in enumerate(pairs) if state in p), len(pairs)),))
            for state in range(len(self.edges))
        ]


@dataclass(frozen=True)
class Cell:
    """Nodes, each on the states before it."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class CellStack(Composite):
    """Cells after one another.

    Args:
        normal, reduction: the two kinds of cell.
        plan: one letter a cell, N or R; R halves the resolution and doubles the channels.
        width: channels of a node before the first R.
    """

    normal: Cell
    reduction: Cell
    plan: str
    width: int

    @property
    def label(self) -> str:
        return f"cells {self.plan}"

    def out(self, x: Shape) -> Shape:
        return self.steps(x)[-1].out

    def steps(self, x: Shape) -> list[Step]:
        """Every cell with the shapes that enter it."""
        found: list[Step] = []
        before = last = x
        width = self.width
        for letter in self.plan:
            width *= 2 if letter == "R" else 1
            step = Step(letter, self.reduction if letter == "R" else self.normal, width, before, last)
            found.append(step)
            before, last = last, step.out
        return found

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        for step in self.steps(x):
            yield from (Leaf(fit, shape) for fit, shape in step.fits)
            for node in step.cell.nodes:
                for state, conditions in node.sources():
                    for leaf in node.edges[state].leaves(step.state_shape(state)):
                        yield Leaf(leaf.spec, leaf.x, (*conditions, *leaf.conditions))

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return CellStackModule(self, x, builder)


@dataclass(frozen=True)
class Step:
    """One cell of a stack: `before` and `last` are the shapes of its two inputs, `width` its nodes' channels."""

    letter: str
    cell: Cell
    width: int
    before: Shape
    last: Shape

    @property
    def fits(self) -> tuple[tuple[NormConv, Shape], tuple[NormConv, Shape]]:
        """What brings the two inputs to one shape."""
        alike = (self.before.height, self.before.width) == (self.last.height, self.last.width)
        older = NormConv(self.width, 1 if alike else 2)
        return (older, self.before), (NormConv(self.width), self.last)

    def state_shape(self, state: int) -> Shape:
        x = self.last.with_channels(Channels.of(self.width))
        return x if state < 2 or self.letter == "N" else x.down(2)

    @property
    def out(self) -> Shape:
        nodes = len(self.cell.nodes)
        return self.state_shape(2).with_channels(Channels.of(nodes * self.width))


class CellStackModule(nn.Module):
    """x (B, C, H, W) -> the last cell's output."""

    def __init__(self, spec: CellStack, x: Shape, builder: Builder) -> None:
        super().__init__()
        self.cells = nn.ModuleList(CellModule(step, builder) for step in spec.steps(x))

    def forward(self, x: Tensor) -> Tensor:
        before = last = x
        for cell in self.cells:
            before, last = last, cell(before, last)
        return last


class CellModule(nn.Module):
    """The outputs of the two cells before -> the nodes' outputs side by side."""

    def __init__(self, step: Step, builder: Builder) -> None:
        super().__init__()
        self.fits = nn.ModuleList(fit.build(shape, builder) for fit, shape in step.fits)
        self.nodes = nn.ModuleList(NodeModule(node, step, builder) for node in step.cell.nodes)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states: list[Tensor] = [fit(x) for fit, x in zip(self.fits, (before, last), strict=True)]
        for node in self.nodes:
            states.append(node(states))
        return torch.cat(states[2:], 1)


class NodeModule(nn.Module):
    """Earlier states -> their weighted sum through the edges; only edges that count are run."""

    def __init__(self, node: Node, step: Step, builder: Builder) -> None:
        super().__init__()
        self.sources = builder.sources(node.inputs)
        self.edges = nn.ModuleDict(
            {str(state): node.edges[state].build(step.state_shape(state), builder) for state, _ in node.sources()}
        )

    def forward(self, states: list[Tensor]) -> Tensor:
        total: Tensor = self.sources(lambda state: self.edges[str(state)](states[state]))
        return total
