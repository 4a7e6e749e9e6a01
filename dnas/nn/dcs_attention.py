"""DCS-Attention: self-attention over differentiably selected channels (arXiv 2505.08961, section 3).

    theta = X W_t + b_t
    training:   m = sigmoid((theta + g) / tau), g ~ Logistic(0, 1);  M = [m > 1/2], gradient of m
    inference:  M = [theta > 0]
    A = softmax((X * M)(X * M)^T / sqrt(C)),   Y = A X      (values are not masked)

Shapes: B batch, C channels, H W, N = H * W tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dnas.nn.non_local import NonLocal, NonLocalModule, as_tokens
from dnas.run.noise import rand_like
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


class ChannelSelection(nn.Module):
    """Tokens x (B, N, C) -> binary mask M (B, N, C); in training mode its gradient is that of the soft mask.

    `temperature` (tau) is set by the training loop. What is selected, `dnas.eval.selection` reports; `mask` tells which
    channels of an open width are in use.
    """

    def __init__(self, c: Channels, builder: Builder) -> None:
        super().__init__()
        self.temperature = 1.0
        self.logits = nn.Linear(c.size, c.size)
        nn.init.zeros_(self.logits.weight)
        nn.init.constant_(self.logits.bias, 4.0)  # everything selected at the start
        self.channels, self.mask = builder.width(c), builder.mask(c)

    def selection_parameters(self) -> Iterator[nn.Parameter]:
        """What decides what is selected: a kind of its own for the optimiser."""
        return self.logits.parameters()

    def noise(self, like: Tensor) -> Tensor:
        """Logistic(0, 1) noise, the difference of two Gumbel variables."""
        return torch.logit(rand_like(like), eps=1e-6)

    def theta(self, x_BNC: Tensor) -> Tensor:
        """The logits of the selection (B, N, C): in inference a channel is open where they are above zero."""
        theta_BNC: Tensor = self.logits(x_BNC)
        return theta_BNC

    def opened(self, x_BNC: Tensor) -> Tensor:
        """Which channels are open (1) in inference, of tokens (B, N, C)."""
        return (self.theta(x_BNC) > 0).to(x_BNC.dtype)

    def harden(self, soft_BNC: Tensor) -> Tensor:
        """The binary mask, with the gradient of the soft one."""
        return (soft_BNC > 0.5).to(soft_BNC.dtype) + (soft_BNC - soft_BNC.detach())

    def forward(self, x_BNC: Tensor) -> Tensor:
        theta_BNC = self.theta(x_BNC)
        if self.training:
            mask_BNC = self.harden(((theta_BNC + self.noise(theta_BNC)) / self.temperature).sigmoid())
        else:
            mask_BNC = (theta_BNC > 0).to(theta_BNC.dtype)
        return mask_BNC


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


def set_temperature(network: nn.Module, temperature: float) -> None:
    """Set tau of every channel selection."""
    for module in network.modules():
        if isinstance(module, ChannelSelection):
            module.temperature = temperature
