"""Non-local attention (arXiv 1711.07971) without projections: DCS-Attention's baseline, no channel selection.

    A = softmax(X X^T / sqrt(C)),   Y = A X,   out = x + norm(Y), the norm's gain zero at the start

Shapes: B batch, C channels, H W, N = H * W tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.looked import Grid, Looked, Token, place
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class NonLocal(Spec):
    """Self-attention between the positions of a feature map, added to its input.

    A zero-initialised batch norm ends the branch, so insertion changes nothing at the start.

    Args:
        stride: keys and values are average-pooled by this factor, for maps with many positions.
        scaled: divide the affinity by sqrt(C); without it the softmax saturates at large C.
    """

    stride: int = 1
    scaled: bool = True
    attention = True

    @property
    def label(self) -> str:
        return "non-local" + (f" s{self.stride}" if self.stride > 1 else "")

    def cost(self, x: Shape) -> cost.Cost:
        products = cost.attention(x.channels, x.positions, x.down(self.stride).positions)
        return products + cost.norm(x.channels)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return NonLocalModule(x.channels, self.stride, self.scaled, builder)


class NonLocalModule(Looked):
    """x (B, C, H, W) -> the same shape. Memory grows linearly in N: the N x N affinity is never held."""

    over_positions = True

    def __init__(self, c: Channels, stride: int, scaled: bool, builder: Builder) -> None:
        super().__init__()
        self.stride, self.scaled = stride, scaled
        self.channels = builder.width(c)
        self.norm = builder.norm(c)
        nn.init.zeros_(self.norm.weight)

    def tokens(self, x_BNC: Tensor) -> Tensor:
        """What the affinity compares: here the positions as they are."""
        return x_BNC

    def chosen(self, x_BNC: Tensor) -> Tensor:
        """What is left of the compared tokens in queries and keys: here all."""
        return x_BNC

    def scale(self, chosen_BNC: Tensor) -> Tensor | float:
        """Factor on the products of queries and keys: one, or one for each image (B, 1, 1)."""
        return self.channels() ** -0.5 if self.scaled else 1.0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h, w = x_BCHW.shape[2:]
        queries_BNC, keys_BNC, values_BNC = self._parts(x_BCHW)
        # one head, channels contiguous: else torch falls back to holding the N x N affinity
        q_B1NC, k_B1NC, v_B1NC = (tokens[:, None] for tokens in (queries_BNC, keys_BNC, values_BNC))
        y_BNC = F.scaled_dot_product_attention(q_B1NC, k_B1NC, v_B1NC, scale=1.0)[:, 0]
        branch: Tensor = self.norm(as_map(y_BNC, h, w))
        return x_BCHW + branch

    def affinity(self, x_BCHW: Tensor) -> Tensor:
        """The attention A (B, N, positions of the keys) that `forward` never holds: for looking at a few images."""
        queries_BNC, keys_BNC = self.queries_and_keys(x_BCHW)
        return (queries_BNC @ keys_BNC.transpose(1, 2)).softmax(2)

    def looking(self, x: Tensor, token: Token) -> tuple[int, int]:
        return place(token, *x.shape[2:])

    def position_map(self, x: Tensor, token: Token, grid: Grid | None) -> Tensor:
        """The row of the attention of the position that looks."""
        h, w = x.shape[2:]
        row, col = self.looking(x, token)
        found: Tensor = self.affinity(x)[:, row * w + col].unflatten(1, (-(-h // self.stride), -(-w // self.stride)))
        return found

    def queries_and_keys(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What the affinity is made of: the softmax of their products, scales included."""
        queries_BNC, keys_BNC, _ = self._parts(x_BCHW)
        return queries_BNC, keys_BNC

    def _parts(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values."""
        h, w = x_BCHW.shape[2:]
        x_BNC = as_tokens(x_BCHW)
        chosen_BNC = keys_BNC = self.chosen(self.tokens(x_BNC))
        values_BNC = x_BNC
        if self.stride > 1:
            keys_BNC, values_BNC = (self._pool(tokens, h, w) for tokens in (chosen_BNC, x_BNC))
        return chosen_BNC * self.scale(chosen_BNC), keys_BNC, values_BNC

    def _pool(self, x_BNC: Tensor, h: int, w: int) -> Tensor:
        pooled = F.avg_pool2d(as_map(x_BNC, h, w), self.stride, ceil_mode=True, count_include_pad=False)
        return as_tokens(pooled)


def as_tokens(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) -> contiguous (B, N, C); no copy where the map is channels-last in memory."""
    return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


def as_map(x_BNC: Tensor, h: int, w: int) -> Tensor:
    """(B, N, C) -> (B, C, H, W), channels-last in memory."""
    return x_BNC.reshape(x_BNC.shape[0], h, w, -1).permute(0, 3, 1, 2)  # not len(): exporters take it for a constant
