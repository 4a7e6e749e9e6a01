"""The selection of channels by each token, differentiable: the mask M of DCS-Attention (arXiv 2505.08961, section 3).

    theta = X W_t + b_t
    training:   m = sigmoid((theta + g) / tau), g ~ Logistic(0, 1);  M = [m > 1/2], gradient of m
    inference:  M = [theta > 0]

Shapes: B batch, N tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dnas.run.noise import rand_like
from dnas.space.holes import Channels
from dnas.space.spec import Builder


class Hardened(torch.autograd.Function):
    """[x > 0], with the gradient of sigmoid(x / tau): composed of others it would pass over x twice as often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: float) -> Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward((x / temperature).sigmoid_())
        return torch.gt(x, 0, out=torch.empty_like(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (soft,) = ctx.saved_tensors
        return torch.ops.aten.sigmoid_backward(gradient, soft).div_(ctx.temperature), None


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
        return rand_like(like).logit_(eps=1e-6)

    def theta(self, x_BNC: Tensor) -> Tensor:
        """The logits of the selection (B, N, C): in inference a channel is open where they are above zero."""
        theta_BNC: Tensor = self.logits(x_BNC)
        return theta_BNC

    def opened(self, x_BNC: Tensor) -> Tensor:
        """Which channels are open (1) in inference, of tokens (B, N, C)."""
        return (self.theta(x_BNC) > 0).to(x_BNC.dtype)

    def harden(self, noisy_BNC: Tensor) -> Tensor:
        """The binary mask M of theta + g, with the gradient of the soft one."""
        mask_BNC: Tensor = Hardened.apply(noisy_BNC, self.temperature)
        return mask_BNC

    def forward(self, x_BNC: Tensor) -> Tensor:
        theta_BNC = self.theta(x_BNC)
        if self.training:
            mask_BNC = self.harden(theta_BNC + self.noise(theta_BNC))
        else:
            mask_BNC = (theta_BNC > 0).to(theta_BNC.dtype)
        return mask_BNC


def set_temperature(network: nn.Module, temperature: float) -> None:
    """Set tau of every channel selection."""
    for module in network.modules():
        if isinstance(module, ChannelSelection):
            module.temperature = temperature
