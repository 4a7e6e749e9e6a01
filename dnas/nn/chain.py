"""Composition: parts one after the other, and the part that does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from dnas.space.canonical import mark
from dnas.space.cost import Cost
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Composite, Leaf, Spec


@dataclass(frozen=True)
class Chain(Composite):
    """Parts in sequence.

    Args:
        name: titles the group in drawings.
        stage: which stage of a backbone this is, counted from one; 0: none.
    """

    parts: tuple[Spec, ...]
    name: str = ""
    stage: int = mark(0)

    @property
    def label(self) -> str:
        return self.name or f"{len(self.parts)} parts"

    def steps(self, x: Shape) -> list[tuple[Spec, Shape]]:
        """Every part with the shape that enters it."""
        found = []
        for part in self.parts:
            found.append((part, x))
            x = part.out(x)
        return found

    def out(self, x: Shape) -> Shape:
        for part in self.parts:
            x = part.out(x)
        return x

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        for part, entering in self.steps(x):
            yield from part.leaves(entering)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return nn.Sequential(*(part.build(entering, builder) for part, entering in self.steps(x)))


@dataclass(frozen=True)
class Skip(Spec):
    """The identity: no operation here (at an attention site: no attention)."""

    idle = True

    @property
    def label(self) -> str:
        return "skip"

    def cost(self, x: Shape) -> Cost:
        return Cost()

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return nn.Identity()
