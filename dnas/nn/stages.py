"""The outputs of a network's stages on their way through: what a loss on attention acts on.

A stage is a part of the backbone's chain that is marked as one; its last part is the attention cell, if it has one.
In a vision transformer the attention is inside.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dnas.nn.chain import Chain
from dnas.space.holes import Shape
from dnas.space.spec import Spec


@dataclass(frozen=True)
class Stages:
    """Which parts of a backbone are stages, and how many channels each puts out (of an open width: the most)."""

    parts: tuple[int, ...]
    channels: tuple[int, ...]

    @staticmethod
    def of(spec: Spec, x: Shape) -> Stages:
        """Those of a description; none where it is not a chain of stages."""
        steps = spec.steps(x) if isinstance(spec, Chain) else []
        found = {
            number: part.out(entering).channels.size
            for number, (part, entering) in enumerate(steps)
            if isinstance(part, Chain) and part.stage
        }
        return Stages(tuple(found), tuple(found.values()))

    def through(self, backbone: nn.Module, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The backbone's output, and the mean over the positions (B, C) of every stage's."""
        assert isinstance(backbone, nn.Sequential)
        pooled = []
        for number, part in enumerate(backbone):
            x = part(x)
            if number in self.parts:
                pooled.append(x.mean((2, 3)))
        return x, tuple(pooled)
