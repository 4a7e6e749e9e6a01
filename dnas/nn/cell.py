"""Cells as directed graphs (DARTS, arXiv 1806.09055), stacked: normal cells and cells that halve the resolution.

A cell's states are its two inputs (the outputs of the two cells before it) and its nodes. A node is the sum of
two edges from earlier states; which two is a choice between pairs, and every edge has an operation of its own. The
nodes side by side are the cell's output. All cells of one kind share their decisions.

What reaches no output is dead: an input of a cell that no edge but a zero takes, and a cell that no later one takes.
Closed, it is neither built nor counted; open, it counts where it is not dead.

Shapes: B batch, C channels of a node, H W.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dnas.nn.cell_operations import NormConv, Zero
from dnas.space.cost import NOTHING, Condition, Count
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Composite, Leaf, OneOf, Pair, Spec


@dataclass(frozen=True)
class Node:
    """The sum of two edges. `inputs`: the pair of earlier states; `edges`: an operation for every earlier state."""

    inputs: OneOf | Pair
    edges: tuple[Spec, ...]

    def takes(self, state: int) -> Count:
        """1 where something of a state comes into this node, else 0."""
        fed = [Count.of(1).under(conditions) for source, conditions in self.sources() if source == state]
        return fed[0] * (Count.of(1) - zero(self.edges[state])) if fed else NOTHING

    def sources(self) -> list[tuple[int, tuple[Condition, ...]]]:
        """States that may feed this node, and when they do."""
        if isinstance(self.inputs, Pair):
            return [(state, ()) for state in self.inputs.states]
        pairs = [pair.states for pair in self.inputs.options.values() if isinstance(pair, Pair)]
        return [
            (state, (Condition(self.inputs.key, tuple(k for k, p in enumerate(pairs) if state in p), len(pairs)),))
            for state in range(len(self.edges))
        ]


def zero(edge: Spec) -> Count:
    """1 where nothing comes through an edge, else 0."""
    if isinstance(edge, OneOf):
        options, count = list(edge.options.values()), len(edge.options)
        return sum((zero(o).under([Condition(edge.key, (k,), count)]) for k, o in enumerate(options)), NOTHING)
    return Count.of(1) if isinstance(edge, Zero) else NOTHING


@dataclass(frozen=True)
class Cell:
    """Nodes, each on the states before it."""

    nodes: tuple[Node, ...]

    def takes(self, state: int) -> Count:
        """1 where any node takes something of an input (state 0 or 1), else 0."""
        return Count.of(1) - Count.all_of(Count.of(1) - node.takes(state) for node in self.nodes)


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
        factor = 1
        for letter in self.plan:
            factor *= 2 if letter == "R" else 1
            cell = self.reduction if letter == "R" else self.normal
            step = Step(letter, cell, factor * self.width, factor, before, last)
            found.append(step)
            before, last = last, step.out
        return found

    def presences(self) -> list[tuple[Count, tuple[Count, Count]]]:
        """For every cell: 1 where it reaches the output, else 0; and the same for what fits its two inputs."""
        taken = {"N": self.normal, "R": self.reduction}
        takes = {letter: (taken[letter].takes(0), taken[letter].takes(1)) for letter in {*self.plan}}
        one, found = Count.of(1), [Count.of(1)]
        for k in range(len(self.plan) - 2, -1, -1):
            missed = one - found[0] * takes[self.plan[k + 1]][1]
            if k + 2 < len(self.plan):
                missed = missed * (one - found[1] * takes[self.plan[k + 2]][0])
            found.insert(0, one - missed)
        inputs = (takes[letter] for letter in self.plan)
        return [(cell, (cell * first, cell * second)) for cell, (first, second) in zip(found, inputs, strict=True)]

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        for step, (present, inputs) in zip(self.steps(x), self.presences(), strict=True):
            yield from (
                Leaf(fit, shape, (), there)
                for (fit, shape), there in zip(step.fits, inputs, strict=True)
                if there.known != 0
            )
            if present.known == 0:
                continue
            whole = None if present.known == 1 else present
            for node in step.cell.nodes:
                for state, conditions in node.sources():
                    for leaf in node.edges[state].leaves(step.state_shape(state)):
                        yield Leaf(leaf.spec, leaf.x, (*conditions, *leaf.conditions), whole)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return CellStackModule(self, x, builder)


@dataclass(frozen=True)
class Step:
    """One cell of a stack: `before` and `last` are the shapes of its two inputs, `width` its nodes' channels.

    `stride`: by what factor its nodes have fewer rows and columns than what enters the stack.
    """

    letter: str
    cell: Cell
    width: int
    stride: int
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
        self.count, steps = len(spec.plan), zip(spec.steps(x), spec.presences(), strict=True)
        self.cells = nn.ModuleDict(
            {
                str(k): CellModule(step, [there.known != 0 for there in inputs], builder)
                for k, (step, (present, inputs)) in enumerate(steps)
                if present.known != 0
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        before = last = x
        for k in range(self.count):
            # a dead cell is taken by nobody: what stands for its output does not matter
            before, last = last, self.cells[str(k)](before, last, x) if str(k) in self.cells else last
        return last


class CellModule(nn.Module):
    """The outputs of the two cells before, and what entered the first -> the nodes' outputs side by side."""

    def __init__(self, step: Step, present: list[bool], builder: Builder) -> None:
        super().__init__()
        fits = (
            fit.build(shape, builder) if there else None for (fit, shape), there in zip(step.fits, present, strict=True)
        )
        self.fits = nn.ModuleDict({str(n): fit for n, fit in enumerate(fits) if fit is not None})
        self.nodes = nn.ModuleList(NodeModule(node, step, builder) for node in step.cell.nodes)

    def forward(self, before: Tensor, last: Tensor, x: Tensor) -> Tensor:
        states = [self.fits[str(n)](y) if str(n) in self.fits else y for n, y in enumerate((before, last))]
        for node in self.nodes:
            states.append(node(states, x))
        return torch.cat(states[2:], 1)


class NodeModule(nn.Module):
    """Earlier states -> their weighted sum through the edges; only edges that count are run."""

    def __init__(self, node: Node, step: Step, builder: Builder) -> None:
        super().__init__()
        self.sources = builder.sources(node.inputs)
        self.width, self.stride = step.width, step.stride
        self.edges = nn.ModuleDict(
            {
                str(state): node.edges[state].build(step.state_shape(state), builder)
                for state, _ in node.sources()
                if not isinstance(node.edges[state], Zero)
            }
        )

    def forward(self, states: list[Tensor], x: Tensor) -> Tensor:
        def edge(state: int) -> Tensor:
            name = str(state)
            found: Tensor = self.edges[name](states[state]) if name in self.edges else self.nothing(x)
            return found

        total: Tensor = self.sources(edge)
        return total

    def nothing(self, x: Tensor) -> Tensor:
        """Zeros, of which what comes before the cells gets a gradient of zero: training in parallel waits for one."""
        return (x[:, :1, :: self.stride, :: self.stride] * 0.0).expand(-1, self.width, -1, -1)
