"""A cell whose nodes sum over all earlier states (NAS-Bench-201, arXiv 2001.00326), and what is around it there.

The cell's states are its input and its nodes; every node has an operation on an edge from every earlier state, and the
last node is the output. A node from which no edge leads on to the output is dead: closed, it is neither built nor
counted. Everything in a cell keeps the shape of its input.

Shapes: B batch, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from dnas.errors import UserError
from dnas.nn.cell_operations import NormConv, Zero
from dnas.space import cost
from dnas.space.cost import Condition
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Composite, Leaf, OneOf, Spec

Conditions = tuple[Condition, ...]


@dataclass(frozen=True)
class DenseCell(Composite):
    """`nodes`: for every node the operations on its edges, from the input first to the node before it last."""

    nodes: tuple[tuple[Spec, ...], ...]

    def __post_init__(self) -> None:
        if not self.nodes or any(len(edges) != number for number, edges in enumerate(self.nodes, start=1)):
            found = [len(edges) for edges in self.nodes]
            raise ValueError(f"dense cell: node number n has an edge from each of n states, found {found} edges")

    @property
    def label(self) -> str:
        return f"cell of {len(self.nodes)} nodes"

    def out(self, x: Shape) -> Shape:
        for edges in self.nodes:
            for edge in edges:
                if edge.out(x) != x:
                    raise UserError(f"dense cell: edges must keep the shape {x}, found {edge.label}: {edge.out(x)}")
        return x

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        for number, edges in enumerate(self.nodes, start=1):
            ways = list(self.ways(number, {}))
            for edge in edges:
                for leaf in edge.leaves(x):
                    yield from (Leaf(leaf.spec, leaf.x, (*way, *leaf.conditions)) for way in ways)

    def live(self, state: int) -> bool:
        """Whether some choices let the state reach the output."""
        return any(True for _ in self.ways(state, {}))

    def ways(self, state: int, there: Mapping[tuple[int, int], bool]) -> Iterator[Conditions]:
        """Conditions under which the state reaches the output; no two of them hold at once.

        Args:
            there: edges (from, to) that are known to be there, or not.
        """
        last = len(self.nodes)
        reaching = {last}
        for node in range(last, state, -1):
            if node in reaching:
                reaching |= {source for source in range(node) if there.get((source, node))}
        if state in reaching:
            yield ()
            return
        open_edges = ((s, t) for t in range(last, state, -1) for s in range(state, t) if t in reaching)
        asked = next((edge for edge in open_edges if edge not in there), None)
        if asked is None:
            return
        for answer in (True, False):
            for case in _cases(self.nodes[asked[1] - 1][asked[0]], answer):
                for rest in self.ways(state, {**there, asked: answer}):
                    yield (*case, *rest)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return DenseCellModule(self, x, builder)


def _cases(edge: Spec, there: bool) -> list[Conditions]:
    """Conditions under which an edge is there (or is not), no two of which hold at once."""
    if not isinstance(edge, OneOf):
        return [()] if isinstance(edge, Zero) != there else []
    options = list(edge.options.values())
    whole = [k for k, o in enumerate(options) if not isinstance(o, OneOf) and isinstance(o, Zero) != there]
    found: list[Conditions] = [(Condition(edge.key, tuple(whole), len(options)),)] if whole else []
    for k, option in enumerate(options):
        if isinstance(option, OneOf):
            found += [(Condition(edge.key, (k,), len(options)), *case) for case in _cases(option, there)]
    return found


class DenseCellModule(nn.Module):
    """x (B, C, H, W) -> the last node, (B, C, H, W)."""

    def __init__(self, spec: DenseCell, x: Shape, builder: Builder) -> None:
        super().__init__()
        spec.out(x)
        self.nodes = len(spec.nodes)
        self.edges = nn.ModuleDict(
            {
                f"{source}-{node}": edge.build(x, builder)
                for node, edges in enumerate(spec.nodes, start=1)
                for source, edge in enumerate(edges)
                if not isinstance(edge, Zero) and spec.live(node)
            }
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        states = [x_BCHW]
        for node in range(1, self.nodes + 1):
            names = {source: f"{source}-{node}" for source in range(node)}
            parts = [self.edges[name](states[source]) for source, name in names.items() if name in self.edges]
            # times zero, not zeros: what is before a cell without edges still gets a gradient, of zero
            total: Tensor = sum(parts[1:], parts[0]) if parts else x_BCHW * 0.0
            states.append(total)
        return states[-1]


@dataclass(frozen=True)
class ResidualReduction(Spec):
    """Halves the resolution: ReLU-conv-norm 3x3 twice, the first with stride 2, beside a mean over 2x2 and a 1x1."""

    width: int

    @property
    def label(self) -> str:
        return f"residual block 3x3, {self.width}, s2"

    @property
    def _branch(self) -> tuple[NormConv, NormConv]:
        return NormConv(self.width, 2, 3), NormConv(self.width, 1, 3)

    def out(self, x: Shape) -> Shape:
        return x.down(2).with_channels(Channels.of(self.width))

    def cost(self, x: Shape) -> cost.Cost:
        first, second = self._branch
        return first.cost(x) + second.cost(self.out(x)) + cost.conv(x.channels, self.width, 1, self.out(x).positions)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        first, second = self._branch
        return ResidualReductionModule(
            nn.Sequential(first.build(x, builder), second.build(self.out(x), builder)),
            nn.Conv2d(x.channels.size, self.width, 1, bias=False),
        )


class ResidualReductionModule(nn.Module):
    """x (B, C, H, W) -> (B, width, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, branch: nn.Module, pointwise: nn.Module) -> None:
        super().__init__()
        self.branch, self.pointwise = branch, pointwise

    def forward(self, x_BCHW: Tensor) -> Tensor:
        half = nn.functional.avg_pool2d(x_BCHW, 2, ceil_mode=True, count_include_pad=False)
        total: Tensor = self.branch(x_BCHW) + self.pointwise(half)
        return total


@dataclass(frozen=True)
class NormReLU(Spec):
    """Batch norm and ReLU, after the last cell."""

    label = "norm, ReLU"

    def cost(self, x: Shape) -> cost.Cost:
        return cost.norm(x.channels)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return nn.Sequential(builder.norm(x.channels), nn.ReLU())
