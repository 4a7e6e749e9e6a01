"""An attention cell between the blocks of a vision transformer: on the patch tokens, laid out as a map.

The class token passes by unchanged; it gets what the cell does through the blocks that follow.
Shapes: B batch, C channels, H W of the grid of patches, N = H * W + 1 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dnas.errors import UserError
from dnas.nn.looked import Grid
from dnas.space.cost import Cost
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Leaf, Spec


@dataclass(frozen=True)
class PatchCell(Spec):
    """A cell on the patches among tokens (C x N x 1); the shape stays.

    Raises:
        UserError: what enters is no grid of patches after a class token.
    """

    cell: Spec

    @property
    def attention(self) -> bool:  # type: ignore[override]
        return self.cell.attention

    @property
    def label(self) -> str:
        return f"{self.cell.label} on patches"

    def patches(self, x: Shape) -> Shape:
        """The shape of the patches of tokens."""
        if x.grid is None:
            raise UserError(f"{self.label}: found a map of {x}, allowed: the tokens of a vision transformer")
        return Shape(x.channels, *x.grid)

    def cost(self, x: Shape) -> Cost:
        return self.cell.cost(self.patches(x))

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        for leaf in self.cell.leaves(self.patches(x)):
            whole = leaf.x == self.patches(x)
            yield replace(leaf, spec=PatchCell(leaf.spec), x=x) if whole else leaf

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        patches = self.patches(x)
        return PatchCellModule(self.cell.build(patches, builder), (patches.height, patches.width))


class PatchCellModule(nn.Module):
    """Tokens (B, C, N, 1) -> the same shape."""

    def __init__(self, cell: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.cell, self.grid = cell, grid

    def forward(self, x: Tensor) -> Tensor:
        patches_BCHW = self.cell(x[:, :, 1:, 0].unflatten(2, self.grid))
        return torch.cat([x[:, :, :1], patches_BCHW.flatten(2)[..., None]], 2)
