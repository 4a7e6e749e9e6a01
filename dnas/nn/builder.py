"""What the parts of a description become when it is built. This one: plain modules, no holes.

The supernet's builder (`dnas.search.supernet`) overrides the methods for what is still open.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dnas.errors import UserError
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, OneOf, Pair


class Picked(nn.Module):
    """The edges that feed a node, added up. Called with what computes the edge from a state."""

    def __init__(self, states: tuple[int, ...]) -> None:
        super().__init__()
        self.states = states

    def forward(self, edge: Callable[[int], Tensor]) -> Tensor:
        first, *others = (edge(state) for state in self.states)
        return sum(others, first)


class FixedWidth(nn.Module):
    """A channel count that is known: calling it gives the number."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self) -> Tensor | float:
        return float(self.channels)


class Everything(nn.Module):
    """All channels are in use: nothing to leave out."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        return x


class PlainBuilder(Builder):
    """Builds closed descriptions.

    Raises:
        UserError: the description has a hole left.
    """

    def norm(self, c: Channels) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(self._closed(c))

    def vector_norm(self, c: Channels) -> nn.BatchNorm1d:
        return nn.BatchNorm1d(self._closed(c))

    def mask(self, c: Channels) -> nn.Module:
        self._closed(c)
        return nn.Identity()

    def width(self, c: Channels) -> nn.Module:
        return FixedWidth(self._closed(c))

    def exclude(self, c: Channels) -> nn.Module:
        self._closed(c)
        return Everything()

    def choice(self, one_of: OneOf, x: Shape) -> nn.Module:
        raise UserError(f"choice {one_of.key}: still open, allowed: {', '.join(one_of.options)}")

    def sources(self, inputs: OneOf | Pair) -> nn.Module:
        if not isinstance(inputs, Pair):
            raise UserError(f"choice {inputs.key}: still open, allowed: {', '.join(inputs.options)}")
        return Picked(inputs.states)

    def _closed(self, c: Channels) -> int:
        if not c.closed:
            raise UserError(f"width {c.key}: still open; fill the description before building it")
        return c.size
