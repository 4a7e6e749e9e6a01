"""DCS-Attention: self-attention over differentiably selected channels (arXiv 2505.08961, section 3).

    theta = X W_t + b_t
    training:   m = sigmoid((theta + g) / tau), g ~ Logistic(0, 1);  M = [m > 1/2], gradient of m
    inference:  M = [theta > 0]
    A = softmax((X * M)(X * M)^T / sqrt(C)),   Y = A X      (values are not masked)

Shapes: B batch, C channels, H W, N = H * W tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dnas.nn.channel_selection import ChannelSelection
from dnas.nn.non_local import NonLocal, NonLocalModule, as_tokens
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder


@dataclass(frozen=True)
class DCSAttention(NonLocal):
    """Non-local attention whose queries and keys use selected channels."""

    @property
    def label(self) -> str:
        return "DCS" + (f" s{self.stride}" if self.stride > 1 else "")

    def cost(self, x: Shape) -> cost.Cost:
        return super().cost(x) + cost.conv(x.channels, x.channels, 1, x.positions, bias=True)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return DCSAttentionModule(x.channels, self.stride, self.scaled, builder)


class Selecting(NonLocalModule):
    """Attention between positions whose queries and keys are of selected channels."""

    channel_word = "share selected"
    select: ChannelSelection

    @property
    def selection(self) -> ChannelSelection:
        return self.select

    def opened(self, x: Tensor) -> Tensor:
        return self.select.opened(self.tokens(as_tokens(x)))


class DCSAttentionModule(Selecting):
    """x (B, C, H, W) -> the same shape."""

    def __init__(self, c: Channels, stride: int, scaled: bool, builder: Builder) -> None:
        super().__init__(c, stride, scaled, builder)
        self.select = ChannelSelection(c, builder)

    def chosen(self, x_BNC: Tensor) -> Tensor:
        masked: Tensor = x_BNC * self.select(x_BNC)
        return masked
