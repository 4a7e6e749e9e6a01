"""Vision transformer (arXiv 2010.11929) under torchvision's parameter names, with channel selection inside its blocks.

A block's DCS masks its own queries and keys: M from the block's normalised tokens, Q * M and K * M; heads and
values stay (arXiv 2505.08961). At the start everything is selected, so pretrained weights stay meaningful.

Shapes: B batch, N tokens (class token first), C channels, H W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.errors import UserError
from dnas.nn.chain import Skip
from dnas.nn.channel_selection import ChannelSelection
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.looked import Grid, Looked, Token
from dnas.nn.pretrained import BackbonePart
from dnas.nn.selective_attention import LimitedSelection, SelectiveAttention
from dnas.space import cost
from dnas.space.canonical import added
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec

POSITIONS = "encoder.pos_embedding"
"""Entry of the position embedding."""
START = 3.0
"""Of a selective block's theta: 5 % of the channels are closed by noise in training, as much as a usual dropout;
published weights were trained with all of them open."""


@dataclass(frozen=True)
class PatchTokens(Spec):
    """Image to tokens: patches x patches convolution, class token, position embedding. Out: C x N x 1."""

    width: int
    patch: int
    stride: int

    @property
    def label(self) -> str:
        return f"patches {self.patch}x{self.patch} s{self.stride}"

    def grid(self, x: Shape) -> tuple[int, int]:
        """Patches along height and width."""
        whole = self.stride < self.patch or not (x.height % self.patch or x.width % self.patch)
        if not whole or min(x.height, x.width) < self.patch:
            allowed = "at least" if self.stride < self.patch else "multiples of"
            raise UserError(f"input: found {x.height} x {x.width}, allowed: {allowed} the patch size {self.patch}")
        return (x.height - self.patch) // self.stride + 1, (x.width - self.patch) // self.stride + 1

    def out(self, x: Shape) -> Shape:
        h, w = self.grid(x)
        return Shape(Channels.of(self.width), h * w + 1, 1, (h, w))

    def cost(self, x: Shape) -> cost.Cost:
        h, w = self.grid(x)
        extra = cost.Cost(params=cost.Count.of(self.width, h * w + 2))
        projection = cost.conv(x.channels, self.width, self.patch, h * w, bias=True)
        return projection + extra

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return PatchTokensModule(self, x)


class PatchTokensModule(BackbonePart):
    """Images (B, 3, H, W) -> tokens as a map (B, C, N, 1)."""

    def __init__(self, spec: PatchTokens, x: Shape) -> None:
        super().__init__()
        self.grid = spec.grid(x)
        self.class_token = nn.Parameter(torch.zeros(1, 1, spec.width))
        self.conv_proj = nn.Conv2d(x.channels.size, spec.width, spec.patch, spec.stride)
        positions = nn.Parameter(0.02 * torch.randn(1, 1 + self.grid[0] * self.grid[1], spec.width))
        self.encoder = nn.ParameterDict({"pos_embedding": positions})

    def forward(self, x: Tensor) -> Tensor:
        patches_BNC = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens_BNC = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches_BNC], 1)
        return _as_map(tokens_BNC + self.encoder["pos_embedding"])

    def adapt(self, state: Mapping[str, Tensor], source: str, grid: Grid | None) -> tuple[Mapping[str, Tensor], str]:
        """Resize the position embedding to this grid; a square number of patches is taken as a square.

        Raises:
            UserError: another number of patches, and no grid given; or one of another number.
        """
        table = state.get(POSITIONS)
        if table is None or table.dim() != 3:
            return state, ""
        count = table.shape[1] - 1
        side = math.isqrt(max(count, 0))
        if grid is None and side * side != count:
            raise UserError(
                f"{source}: has positions of {count} patches; say their grid, rows x columns:"
                f" --weights_grid {self.grid[0]}x{self.grid[1]} if it is the network's own"
            )
        found = grid or (side, side)
        if found[0] * found[1] != count:
            raise UserError(f"weights_grid: found {found[0]}x{found[1]}, allowed: a grid of {count} patches ({source})")
        if found == self.grid:
            return state, ""
        return {**state, POSITIONS: resized_positions(table, found, self.grid)}, self.said(found)

    def said(self, old: Grid) -> str:
        """What is said of positions that come from another grid."""
        return f"positions resized from {old[0]} x {old[1]} to {self.grid[0]} x {self.grid[1]} patches"


def resized_positions(table_1NC: Tensor, old: Grid, new: Grid) -> Tensor:
    """A position embedding (1, 1 + N, C) for another grid of patches (bicubic); the class token's stays."""
    patches = table_1NC[:, 1:].unflatten(1, old).permute(0, 3, 1, 2)
    resized = F.interpolate(patches, new, mode="bicubic", align_corners=False)
    return torch.cat([table_1NC[:, :1], resized.flatten(2).transpose(1, 2)], 1)


@dataclass(frozen=True)
class TransformerStage(Spec):
    """Pre-norm encoder blocks on tokens (C x N x 1).

    Args:
        index: of the first block.
        select: channel selection inside every block, of this `kind`.
    """

    index: int
    blocks: int
    heads: int
    select: bool = False
    kind: Literal["dcs", "selective"] = added("dcs", before="dcs")

    @property
    def attention(self) -> bool:  # type: ignore[override]
        return self.select

    @property
    def label(self) -> str:
        word = {"dcs": ", DCS", "selective": ", selective"}[self.kind] if self.select else ""
        return f"{self.blocks} x transformer block, {self.heads} heads{word}"

    @property
    def cell(self) -> Spec:
        """The attention cell that stands for what is inside the blocks."""
        if not self.select:
            return Skip()
        return DCSAttention() if self.kind == "dcs" else SelectiveAttention()

    def selection(self, c: Channels, builder: Builder) -> ChannelSelection | None:
        """What selects in a block, if anything does."""
        if not self.select:
            return None
        return ChannelSelection(c, builder) if self.kind == "dcs" else LimitedSelection(c, builder, START)

    def cost(self, x: Shape) -> cost.Cost:
        c, n = x.channels, x.positions
        block = cost.conv(c, c * 3, 1, n, bias=True) + cost.attention(c, n, n) + cost.conv(c, c, 1, n, bias=True)
        block += (
            cost.conv(c, c * 4, 1, n, bias=True) + cost.conv(c * 4, c, 1, n, bias=True) + cost.norm(c) + cost.norm(c)
        )
        if self.select:
            block += cost.conv(c, c, 1, n, bias=True)
        return sum([block] * self.blocks, cost.Cost())

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return TransformerStageModule(self, x.channels, builder)


class TransformerStageModule(BackbonePart):
    """Tokens (B, C, N, 1) -> the same shape."""

    ours = ".select."

    def __init__(self, spec: TransformerStage, c: Channels, builder: Builder) -> None:
        super().__init__()
        names = [f"encoder_layer_{spec.index + k}" for k in range(spec.blocks)]
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleDict({name: Block(c, spec.heads, spec.selection(c, builder)) for name in names})}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.through(x, select=True)

    def through(self, x: Tensor, select: bool) -> Tensor:
        """The blocks, with the channel selection that they have or without it."""
        tokens_BNC = _as_tokens(x)
        for block in self.encoder["layers"].values():  # type: ignore[operator]
            tokens_BNC = block(tokens_BNC, select)
        return _as_map(tokens_BNC)


class Block(Looked):
    """One encoder block: tokens (B, N, C) -> the same shape."""

    over_positions = True

    def __init__(self, c: Channels, heads: int, select: ChannelSelection | None) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(c.size, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(c.size, heads, batch_first=True)  # its parameters, by their names
        self.select = select
        self.channel_word = "share selected" if select is not None else ""
        self.ln_2 = nn.LayerNorm(c.size, eps=1e-6)
        hidden, out = nn.Linear(c.size, 4 * c.size), nn.Linear(4 * c.size, c.size)
        self.mlp = nn.ModuleDict({"0": hidden, "3": out})

    def forward(self, x_BNC: Tensor, select: bool = True) -> Tensor:
        x_BNC = x_BNC + self._attend(self.ln_1(x_BNC), select)
        hidden = F.gelu(self.mlp["0"](self.ln_2(x_BNC)))
        y_BNC: Tensor = x_BNC + self.mlp["3"](hidden)
        return y_BNC

    def _attend(self, x_BNC: Tensor, select: bool) -> Tensor:
        own = self.self_attention
        q, k, v = self._heads(x_BNC, select)
        y_BNC = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        mixed: Tensor = F.linear(y_BNC, own.out_proj.weight, own.out_proj.bias)
        return mixed

    def affinity(self, x_BNC: Tensor) -> Tensor:
        """The attention (B, N, N), the mean over the heads, that `forward` never holds: for looking at a few images."""
        q, k = self.queries_and_keys(x_BNC)
        return (q @ k.transpose(2, 3)).softmax(3).mean(1)

    @property
    def selection(self) -> ChannelSelection | None:
        return self.select

    def position_map(self, x: Tensor, token: Token, grid: Grid | None) -> Tensor:
        """Where the class token looks, among the patches."""
        return self.by_place(self.affinity(x)[:, 0], x, grid)

    def opened(self, x: Tensor) -> Tensor | None:
        return None if self.select is None else self.select.opened(self.ln_1(x))

    def by_place(self, values_BN: Tensor, x: Tensor, grid: Grid | None) -> Tensor:
        """Those of the patches: the class token has no place."""
        assert grid is not None
        found: Tensor = values_BN[:, 1:].unflatten(1, grid)
        return found

    def queries_and_keys(self, x_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """What the affinity of every head is made of (B, heads, N, C / heads): the softmax of their products."""
        q, k, _ = self._heads(self.ln_1(x_BNC))
        return q * q.shape[3] ** -0.5, k

    def _heads(self, x_BNC: Tensor, select: bool = True) -> list[Tensor]:
        """Queries, keys and values (B, heads, N, C / heads) of normalised tokens."""
        own = self.self_attention
        q_BNC, k_BNC, v_BNC = F.linear(x_BNC, own.in_proj_weight, own.in_proj_bias).chunk(3, dim=2)
        if select and self.select is not None:
            mask_BNC = self.select(x_BNC)
            q_BNC, k_BNC = q_BNC * mask_BNC, k_BNC * mask_BNC
        return [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q_BNC, k_BNC, v_BNC)]


@dataclass(frozen=True)
class ClassToken(Spec):
    """Final layer norm; the class token as the feature (C x 1 x 1)."""

    @property
    def label(self) -> str:
        return "layer norm, class token"

    def out(self, x: Shape) -> Shape:
        return Shape(x.channels, 1, 1)

    def cost(self, x: Shape) -> cost.Cost:
        return cost.norm(x.channels)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return ClassTokenModule(x.channels.size)


class ClassTokenModule(BackbonePart):
    """Tokens (B, C, N, 1) -> (B, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"ln": nn.LayerNorm(channels, eps=1e-6)})

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.encoder["ln"](x[:, :, 0, 0])
        return normalised[:, :, None, None]


def _as_map(tokens_BNC: Tensor) -> Tensor:
    return tokens_BNC.transpose(1, 2)[..., None]


def _as_tokens(x: Tensor) -> Tensor:
    return x[..., 0].transpose(1, 2)
