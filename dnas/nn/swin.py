"""Swin transformer (Liu et al., ICCV 2021, arXiv 2103.14030) from torchvision's blocks, attention after each stage.

Between stages the features are maps (C x H x W), so every attention cell has a place. Without stochastic depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock

from dnas.nn.pretrained import BackbonePart, NamedSequence
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec

WINDOW = 7
LayerNorm = partial(nn.LayerNorm, eps=1e-5)


class ChannelsLast(BackbonePart):
    """Runs its children on (B, H, W, C); in and out are maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class SwinPatches(Spec):
    """Patches of `patch` x `patch` pixels as C-dimensional tokens, layer norm."""

    width: int
    patch: int

    @property
    def label(self) -> str:
        return f"patches {self.patch}x{self.patch}"

    def out(self, x: Shape) -> Shape:
        return Shape(Channels.of(self.width), max(1, x.height // self.patch), max(1, x.width // self.patch))

    def cost(self, x: Shape) -> cost.Cost:
        return cost.conv(x.channels, self.width, self.patch, self.out(x).positions, bias=True) + cost.norm(self.width)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return SwinPatchesModule(x.channels.size, self.width, self.patch)


class SwinPatchesModule(BackbonePart):
    """Images (B, 3, H, W) -> (B, C, H / patch, W / patch)."""

    def __init__(self, c_in: int, width: int, patch: int) -> None:
        super().__init__()
        layers = {"0": nn.Conv2d(c_in, width, patch, patch), "2": LayerNorm(width)}
        self.features = nn.ModuleDict({"0": nn.ModuleDict(layers)})

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.features["0"].values()  # type: ignore[operator]
        y: Tensor = norm(conv(x).permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class SwinStage(Spec):
    """Blocks of (shifted) window attention, first (if `merge`) 2x2 tokens into one of twice the width.

    `index`: of the blocks in torchvision's features.N; the merging is N - 1.
    """

    index: int
    width: int
    blocks: int
    heads: int
    merge: bool

    @property
    def label(self) -> str:
        return ("merge 2x2, " if self.merge else "") + f"{self.blocks} x window attention, {self.heads} heads"

    def out(self, x: Shape) -> Shape:
        return (x.down(2) if self.merge else x).with_channels(Channels.of(self.width))

    def cost(self, x: Shape) -> cost.Cost:
        c, y, total = self.width, self.out(x), cost.Cost()
        if self.merge:
            total += cost.conv(4 * x.channels.size, c, 1, y.positions) + cost.norm(4 * x.channels.size)
        n = (-(-y.height // WINDOW)) * (-(-y.width // WINDOW)) * WINDOW**2  # padded to whole windows
        block = cost.conv(c, 3 * c, 1, n, bias=True) + cost.conv(c, c, 1, n, bias=True)
        block += cost.attention(c, n, WINDOW**2)
        block += cost.Cost(params=cost.Count.of((2 * WINDOW - 1) ** 2 * self.heads))  # relative positions
        block += cost.conv(c, 4 * c, 1, y.positions, bias=True) + cost.conv(4 * c, c, 1, y.positions, bias=True)
        block += cost.norm(c) + cost.norm(c)
        return sum([block] * self.blocks, total)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        blocks = [
            SwinTransformerBlock(
                self.width, self.heads, [WINDOW] * 2, [WINDOW // 2 * (k % 2)] * 2, norm_layer=LayerNorm
            )
            for k in range(self.blocks)
        ]
        layers: dict[str, nn.Module] = {str(self.index): nn.Sequential(*blocks)}
        if self.merge:
            layers = {str(self.index - 1): PatchMerging(x.channels.size, LayerNorm)} | layers
        part = ChannelsLast()
        part.features = NamedSequence(layers)
        return part


@dataclass(frozen=True)
class SwinNorm(Spec):
    """The layer norm at the end."""

    @property
    def label(self) -> str:
        return "layer norm"

    def cost(self, x: Shape) -> cost.Cost:
        return cost.norm(x.channels)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        part = ChannelsLast()
        part.norm = LayerNorm(x.channels.size)
        return part
