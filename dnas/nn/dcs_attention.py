"""DCS-Attention: self-attention over differentiably selected channels (arXiv 2505.08961, section 3).

    theta = X W_t + b_t
    training:   m = sigmoid((theta + g) / tau), g ~ Logistic(0, 1);  M = [m > 1/2], gradient of m
    inference:  M = [theta > 0]
    A = softmax((X * M)(X * M)^T / sqrt(C)),   Y = A X      (values are not masked)

Shapes: B batch, C channels, H W, N = H * W tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.builder import Builder
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Spec


@dataclass(frozen=True)
class DCSAttention(Spec):
    """Non-local attention whose queries and keys use selected channels, added to its input.

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
        return "DCS" + (f" s{self.stride}" if self.stride > 1 else "")

    def cost(self, x: Shape) -> cost.Cost:
        c, n = x.channels, x.positions
        return cost.conv(c, c, 1, n, bias=True) + cost.attention(c, n, x.down(self.stride).positions) + cost.norm(c)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return DCSAttentionModule(self, x.channels, builder)


class DCSAttentionModule(nn.Module):
    """x (B, C, H, W) -> the same shape.

    `temperature` (tau) is set by the training loop; `selected` is the share of channels that the last
    forward pass selected (a scalar tensor, NaN before the first).
    """

    def __init__(self, spec: DCSAttention, c: Channels, builder: Builder) -> None:
        super().__init__()
        self.stride, self.scaled, self.temperature = spec.stride, spec.scaled, 1.0
        self.select = nn.Linear(c.size, c.size)
        nn.init.zeros_(self.select.weight)
        nn.init.constant_(self.select.bias, 4.0)  # everything selected at the start
        self.channels = builder.width(c)
        self.mask = builder.mask(c)
        self.norm = builder.norm(c)
        nn.init.zeros_(self.norm.weight)
        self.register_buffer("selected", torch.tensor(torch.nan), persistent=False)
        self.selected: Tensor

    def noise(self, like: Tensor) -> Tensor:
        """Logistic(0, 1) noise, the difference of two Gumbel variables."""
        return torch.logit(torch.rand_like(like), eps=1e-6)

    def selection(self, x_BNC: Tensor) -> Tensor:
        """The binary mask M (B, N, C); in training mode its gradient is that of the soft mask."""
        theta_BNC: Tensor = self.select(x_BNC)
        if not self.training:
            return (theta_BNC > 0).to(theta_BNC.dtype)
        soft_BNC = ((theta_BNC + self.noise(theta_BNC)) / self.temperature).sigmoid()
        return (soft_BNC > 0.5).to(soft_BNC.dtype) + (soft_BNC - soft_BNC.detach())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h, w = x_BCHW.shape[2:]
        x_BNC = x_BCHW.flatten(2).transpose(1, 2)
        mask_BNC = self.selection(x_BNC)
        chosen_BNC, values_BNC = x_BNC * mask_BNC, x_BNC
        keys_BNC = chosen_BNC
        if self.stride > 1:
            keys_BNC, values_BNC = self._pool(chosen_BNC, h, w), self._pool(x_BNC, h, w)
        width = self.channels()
        queries_BNC = chosen_BNC * width**-0.5 if self.scaled else chosen_BNC
        y_BNC = F.scaled_dot_product_attention(queries_BNC, keys_BNC, values_BNC, scale=1.0)
        with torch.no_grad():  # the share among the channels in use: masked ones are zeroed before the mean
            self.selected = self.mask(mask_BNC.mean((0, 1))[None]).sum() / width
        branch: Tensor = self.norm(_as_map(y_BNC, h, w))
        return x_BCHW + branch

    def _pool(self, x_BNC: Tensor, h: int, w: int) -> Tensor:
        pooled = F.avg_pool2d(_as_map(x_BNC, h, w), self.stride, ceil_mode=True, count_include_pad=False)
        return pooled.flatten(2).transpose(1, 2)


def _as_map(x_BNC: Tensor, h: int, w: int) -> Tensor:
    return x_BNC.transpose(1, 2).reshape(x_BNC.shape[0], x_BNC.shape[2], h, w)


def set_temperature(network: nn.Module, temperature: float) -> None:
    """Start an epoch: set tau of every DCS module, and forget which share it selected before."""
    for module in network.modules():
        if isinstance(module, DCSAttentionModule):
            module.temperature = temperature
            module.selected = torch.full_like(module.selected, torch.nan)


def selected_shares(network: nn.Module) -> dict[str, float]:
    """Name of every DCS module -> share of channels that its last forward pass selected."""
    return {name: float(m.selected) for name, m in network.named_modules() if isinstance(m, DCSAttentionModule)}
