"""Channel counts and the two kinds of hole: what is still open in a description.

A description of a network is nested frozen dataclasses (`dnas.space.spec.Spec`). A field may hold a
`Width` (how many channels) and a part may be a `OneOf` (which operation, in `dnas.space.spec`).
Holes with one key share one decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dnas.space.canonical import mark


@dataclass(frozen=True)
class Width:
    """How many channels: one of `options`, each a positive number of channels."""

    key: str
    options: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.options or min(self.options) < 1 or len(set(self.options)) != len(self.options):
            raise ValueError(f"width {self.key}: options must be distinct positive numbers, found {self.options}")


@dataclass(frozen=True)
class Channels:
    """A channel count that may still be open: one value for every option of the width `key`.

    A closed count has no key and one value. Everything computed from an open width (an expansion, a
    squeeze) is open too and follows the same key, which is what keeps a masked supernet and a sliced
    child the same function.
    """

    values: tuple[int, ...]
    key: str | None = None

    @staticmethod
    def of(width: int | Width) -> Channels:
        return Channels(width.options, width.key) if isinstance(width, Width) else Channels((width,))

    @property
    def size(self) -> int:
        """Channels that a supernet allocates: the largest option."""
        return max(self.values)

    @property
    def closed(self) -> bool:
        return self.key is None

    def map(self, change: Callable[[int], int]) -> Channels:
        """The count after `change`, option by option (an expansion, a squeeze)."""
        return Channels(tuple(change(value) for value in self.values), self.key)

    def __mul__(self, factor: int) -> Channels:
        return self.map(lambda value: value * factor)

    def __str__(self) -> str:
        if self.closed:
            return str(self.size)
        low, high = min(self.values), max(self.values)
        return f"{low}-{high}" if low < high else str(high)


@dataclass(frozen=True)
class Shape:
    """What flows along an edge: channels x height x width (positions, not pixels of the input).

    `grid`: of tokens in a row (height x 1), a class token and then patches, how many rows and columns of patches.
    """

    channels: Channels
    height: int
    width: int
    grid: tuple[int, int] | None = mark(None)

    @property
    def positions(self) -> int:
        return self.height * self.width

    def down(self, stride: int) -> Shape:
        """The shape after a `stride` with 'same' padding (odd kernel k, padding k // 2)."""
        return Shape(self.channels, -(-self.height // stride), -(-self.width // stride))

    def with_channels(self, channels: Channels) -> Shape:
        return replace(self, channels=channels)

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"
