"""Channel self-attention (the channel half of DANet, arXiv 1809.02983): every channel attends to every other.

    A = softmax(X^T X / sqrt(N)) in R^{C x C},   Y = X A^T,   out = x + norm(Y), the norm's gain zero at the start

Shapes: B batch, C channels, H W, N = H * W positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.looked import Looked
from dnas.space.cost import Cost, Count, norm
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class ChannelAttention(Spec):
    """Self-attention between the channels of a feature map, added to its input."""

    attention = True

    @property
    def label(self) -> str:
        return "channel self-attention"

    def cost(self, x: Shape) -> Cost:
        c = x.channels
        return Cost(Count.of(c, c, 2 * x.positions)) + norm(c)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return ChannelAttentionModule(x.channels, builder)


class ChannelAttentionModule(Looked):
    """x (B, C, H, W) -> the same shape. Masked channels get -inf in the affinity."""

    channel_word = "share of its own"
    at_once = 8  # the affinity of channels is held

    def __init__(self, c: Channels, builder: Builder) -> None:
        super().__init__()
        self.open, self.without_masked = not c.closed, builder.exclude(c)
        self.norm = builder.norm(c)
        nn.init.zeros_(self.norm.weight)

    def affinity(self, x_BCHW: Tensor) -> Tensor:
        """The attention A (B, C, C) of a closed width, that `forward` never holds: for looking at a few images."""
        x_BCN = x_BCHW.flatten(2)
        found: Tensor = (x_BCN @ x_BCN.transpose(1, 2) * x_BCN.shape[2] ** -0.5).softmax(2)
        return found

    def channel_use(self, x: Tensor) -> Tensor:
        """How much of a channel is its own: the diagonal of A."""
        return self.affinity(x).diagonal(dim1=1, dim2=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCN = x_BCHW.flatten(2)
        bias_1C = None
        if self.open:
            bias_1C = self.without_masked(torch.zeros(1, x_BCN.shape[1], dtype=x_BCN.dtype, device=x_BCN.device), 1)
        x_B1CN = x_BCN[:, None]  # one head: exporters know attention with heads only
        y_B1CN = F.scaled_dot_product_attention(x_B1CN, x_B1CN, x_B1CN, attn_mask=bias_1C)  # scale is 1 / sqrt(N)
        branch: Tensor = self.norm(y_B1CN.view_as(x_BCHW))
        return x_BCHW + branch
