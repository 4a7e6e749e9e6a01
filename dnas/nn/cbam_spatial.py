"""The spatial half of CBAM (arXiv 1807.06521) with a gate that starts at one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dnas.nn.gates import gate, zero
from dnas.nn.looked import Grid, Looked, Token
from dnas.space.cost import Cost, conv
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class CBAMSpatial(Spec):
    """x * 2 sigmoid(conv of the channels' mean and maximum at every position)."""

    kernel: int = 7
    attention = True

    @property
    def label(self) -> str:
        return f"CBAM spatial k{self.kernel}"

    def cost(self, x: Shape) -> Cost:
        return conv(2, 1, self.kernel, x.positions)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return CBAMSpatialModule(x.channels, self.kernel, builder)


class CBAMSpatialModule(Looked):
    """x (B, C, H, W) -> the same shape. Mean and maximum skip masked channels."""

    over_positions = True

    def __init__(self, c: Channels, kernel: int, builder: Builder) -> None:
        super().__init__()
        self.channels, self.without_masked = builder.width(c), builder.exclude(c)
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        zero(self.conv)

    def gates(self, x_BCHW: Tensor) -> Tensor:
        """What every position is multiplied by (B, 1, H, W)."""
        mean_B1HW = x_BCHW.sum(1, keepdim=True) / self.channels()
        most_B1HW = self.without_masked(x_BCHW, 1).amax(1, keepdim=True)
        return gate(self.conv(torch.cat([mean_B1HW, most_B1HW], 1)))

    def position_map(self, x: Tensor, token: Token, grid: Grid | None) -> Tensor:
        """The gates."""
        return self.gates(x)[:, 0]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.gates(x_BCHW)
