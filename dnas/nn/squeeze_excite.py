"""Squeeze-and-excitation (arXiv 1709.01507) with a gate that starts at one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.gates import gate, zero
from dnas.nn.looked import Looked
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class SqueezeExcite(Spec):
    """x * 2 sigmoid(W2 relu(W1 mean(x))); W2 = 0 at the start, so insertion changes nothing."""

    reduction: int = 4
    attention = True

    @property
    def label(self) -> str:
        return "SE"

    def squeezed(self, c: Channels) -> Channels:
        return c.map(lambda n: max(1, n // self.reduction))

    def cost(self, x: Shape) -> cost.Cost:
        c, c_mid = x.channels, self.squeezed(x.channels)
        return cost.conv(c, c_mid, 1, 1, bias=True) + cost.conv(c_mid, c, 1, 1, bias=True)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return SqueezeExciteModule(x.channels, self.squeezed(x.channels), builder)


class SqueezeExciteModule(Looked):
    """x (B, C, H, W) -> the same shape."""

    channel_word, gates_channels = "gate", True

    def __init__(self, c: Channels, c_mid: Channels, builder: Builder) -> None:
        super().__init__()
        self.squeeze = nn.Linear(c.size, c_mid.size)
        self.mask = builder.mask(c_mid)
        self.excite = nn.Linear(c_mid.size, c.size)
        zero(self.excite)

    def perceptron(self, pooled_BC: Tensor) -> Tensor:
        """The two layers on pooled channels (B, C) -> (B, C)."""
        z_BC: Tensor = self.excite(self.mask(F.relu(self.squeeze(pooled_BC))))
        return z_BC

    def gates(self, x_BCHW: Tensor) -> Tensor:
        """What every channel is multiplied by (B, C, 1, 1)."""
        return gate(self.perceptron(x_BCHW.mean((2, 3))))[:, :, None, None]

    def channel_use(self, x: Tensor) -> Tensor:
        return self.gates(x)[:, :, 0, 0]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.gates(x_BCHW)
