"""Descriptions of networks: the interface of every operation, and the operation that is still open.

space = a description with holes;   fill(space, choices) = a closed description;
decisions(space) = what is open;    spec.build / spec.cost / spec.out read the same data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from dnas.errors import UserError
from dnas.space.canonical import digest
from dnas.space.cost import Condition, Cost, Count
from dnas.space.holes import Channels, Shape, Width

if TYPE_CHECKING:
    from torch import nn

Choice = str | int
Choices = Mapping[str, Choice]


class Spec(ABC):
    """One operation, as data. Subclasses are frozen dataclasses; `x` is the shape that comes in."""

    attention: bool = False
    """Whether drawings should make this operation stand out as attention."""
    idle: bool = False
    """Whether this is no operation at all (skip, zero): what collapsed searches are full of."""

    @property
    @abstractmethod
    def label(self) -> str:
        """A few words for drawings and tables."""

    def out(self, x: Shape) -> Shape:
        """The shape that goes out; the same as `x` unless overridden."""
        return x

    @abstractmethod
    def cost(self, x: Shape) -> Cost:
        """MACs and parameters for one image."""

    @abstractmethod
    def build(self, x: Shape, builder: Builder) -> nn.Module:
        """The module; holes become what `builder` makes of them."""

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        """The operations that this description is made of, each with its input shape and when it is there."""
        yield Leaf(self, x)


class Builder(ABC):
    """What a description asks of whoever builds it: `dnas.nn.builder` (plain modules), `dnas.search.supernet`."""

    @abstractmethod
    def norm(self, c: Channels) -> nn.BatchNorm2d:
        """Batch norm over maps (B, C, H, W) whose masked channels come out as zero."""

    @abstractmethod
    def vector_norm(self, c: Channels) -> nn.BatchNorm1d:
        """The same over vectors (B, C): for a head, where a description may end in an open width."""

    @abstractmethod
    def mask(self, c: Channels) -> nn.Module:
        """A module that zeroes masked channels (the second dimension of its input)."""

    @abstractmethod
    def width(self, c: Channels) -> nn.Module:
        """A module that returns the number of channels in use, for scales that depend on it."""

    @abstractmethod
    def exclude(self, c: Channels) -> nn.Module:
        """A module f(x, dim) that sets masked channels (dimension `dim`) to -inf, for maxima and softmaxes."""

    @abstractmethod
    def choice(self, one_of: OneOf, x: Shape) -> nn.Module:
        """The module of an open operation."""

    @abstractmethod
    def sources(self, inputs: OneOf | Pair) -> nn.Module:
        """A module that adds up the edges that feed a node; it is called with what computes the edge from a state."""


@dataclass(frozen=True)
class Leaf:
    """An operation inside a description: what it is, what enters it, and the decisions that put it there.

    `presence`: 1 where it is used, 0 where it is dead, if that depends on more than the conditions.
    """

    spec: Spec
    x: Shape
    conditions: tuple[Condition, ...] = ()
    presence: Count | None = None

    def where(self, count: Count) -> Count:
        """A count where the operation is there, nothing elsewhere."""
        count = count.under(self.conditions)
        return count if self.presence is None else count * self.presence

    @property
    def cost(self) -> Cost:
        cost = self.spec.cost(self.x)
        return Cost(self.where(cost.macs), self.where(cost.params))

    def there(self, index: Mapping[str, int]) -> bool:
        """Whether it is part of the network of these options (by number)."""
        chosen = all(index[condition.key] in condition.options for condition in self.conditions)
        return chosen and (self.presence is None or self.presence.at(index) == 1)

    @cached_property
    def keys(self) -> frozenset[str]:
        """The decisions that put it there, and those that are open inside it."""
        return frozenset(decisions(self.spec)).union(condition.key for condition in self.conditions)

    def under(self, condition: Condition) -> Leaf:
        return replace(self, conditions=(*self.conditions, condition))


class Composite(Spec):
    """A description made of others: it costs what its leaves cost."""

    @abstractmethod
    def leaves(self, x: Shape) -> Iterator[Leaf]: ...

    def cost(self, x: Shape) -> Cost:
        return sum((leaf.cost for leaf in self.leaves(x)), Cost())


@dataclass(frozen=True)
class OneOf(Composite):
    """Which operation: a named choice between descriptions with the same output shape."""

    key: str
    options: Mapping[str, Spec]

    @property
    def label(self) -> str:
        return f"one of {', '.join(self.options)}"

    def out(self, x: Shape) -> Shape:
        shapes = {name: option.out(x) for name, option in self.options.items()}
        if len(set(shapes.values())) != 1:
            found = ", ".join(f"{name}: {shape}" for name, shape in shapes.items())
            raise UserError(f"choice {self.key}: options must agree on their output shape, found {found}")
        return next(iter(shapes.values()))

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        for k, option in enumerate(self.options.values()):
            condition = Condition(self.key, (k,), len(self.options))
            yield from (leaf.under(condition) for leaf in option.leaves(x))

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return builder.choice(self, x)


@dataclass(frozen=True)
class Pair(Spec):
    """Which two earlier states feed a node of a cell: an option of its choice of inputs (`dnas.nn.cell`)."""

    states: tuple[int, int]

    @property
    def label(self) -> str:
        return f"{self.states[0]} + {self.states[1]}"

    def cost(self, x: Shape) -> Cost:
        return Cost()

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return builder.sources(self)


@dataclass(frozen=True)
class Space:
    """A search space: a description with holes, and the input it is meant for.

    Args:
        name: what the command line and a genotype call it.
        spec: from image to the last feature map.
        height, width: input size in pixels.
        hint: one line for people.
    """

    name: str
    spec: Spec
    height: int
    width: int
    hint: str = ""

    @property
    def input(self) -> Shape:
        return image(self.height, self.width)

    @property
    def hash(self) -> str:
        """Identifies the description (`dnas.space.canonical`), not the input size: it serves images of any size."""
        return digest(self.spec)

    def resized(self, height: int, width: int) -> Space:
        return replace(self, height=height, width=width)


def image(height: int, width: int) -> Shape:
    """The shape of an RGB image."""
    return Shape(Channels.of(3), height, width)


S = TypeVar("S")


def fill(spec: S, choices: Choices) -> S:
    """Close every hole of a description. Pure data to pure data; KeyError if a choice is missing."""
    return _fill(spec, choices)  # type: ignore[no-any-return]


def _fill(spec: Any, choices: Choices) -> Any:
    if isinstance(spec, OneOf):
        return _fill(spec.options[str(choices[spec.key])], choices)
    if isinstance(spec, Width):
        return choices[spec.key]
    if isinstance(spec, tuple):
        return tuple(_fill(part, choices) for part in spec)
    if isinstance(spec, Mapping):
        return {name: _fill(part, choices) for name, part in spec.items()}
    if is_dataclass(spec) and not isinstance(spec, type):
        return replace(spec, **{f.name: _fill(getattr(spec, f.name), choices) for f in fields(spec) if f.init})
    return spec


@dataclass(frozen=True)
class Decision:
    """One decision of a space: its key and the options in order; `idle`: which of them are no operation anywhere."""

    key: str
    options: tuple[Choice, ...]
    kind: str = "operation"
    idle: tuple[int, ...] = ()

    def index(self, choice: Choice) -> int:
        return self.options.index(choice)


def in_use(leaves: Iterable[Leaf], index: Mapping[str, int]) -> frozenset[str]:
    """The decisions that the network of these options (by number) has a part for; the others change nothing of it."""
    return frozenset[str]().union(*(leaf.keys for leaf in leaves if leaf.there(index)))


def decisions(spec: Any) -> dict[str, Decision]:
    """Every decision of a description, in the order in which the holes appear.

    Raises:
        UserError: one key is used by two holes with different options.
    """
    found: dict[str, Decision] = {}
    for hole in _holes(spec):
        if isinstance(hole, Width):
            decision = Decision(hole.key, hole.options, "width")
        else:
            idle = tuple(k for k, option in enumerate(hole.options.values()) if option.idle)
            decision = Decision(hole.key, tuple(hole.options), "operation", idle)
        known = found.setdefault(hole.key, decision)
        if (known.options, known.kind) != (decision.options, decision.kind):
            raise UserError(f"hole {hole.key}: used with options {known.options} and with {decision.options}")
        found[hole.key] = replace(known, idle=tuple(k for k in known.idle if k in decision.idle))
    return found


def _holes(spec: Any) -> Iterator[Width | OneOf]:
    if isinstance(spec, Width | OneOf):
        yield spec
    if isinstance(spec, Mapping):
        spec = tuple(spec.values())
    if isinstance(spec, tuple):
        for part in spec:
            yield from _holes(part)
    elif is_dataclass(spec) and not isinstance(spec, type):
        for f in fields(spec):
            yield from _holes(getattr(spec, f.name))
