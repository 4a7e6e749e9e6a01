"""A convolution with batch norm and activation: stems and heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dnas.nn.builder import Builder
from dnas.space import cost
from dnas.space.holes import Channels, Shape, Width
from dnas.space.spec import Spec


@dataclass(frozen=True)
class ConvNormAct(Spec):
    """Convolution k x k, batch norm, h-swish. Output channels x ceil(H / s) x ceil(W / s)."""

    width: int | Width
    kernel: int = 3
    stride: int = 1

    @property
    def label(self) -> str:
        return f"conv {self.kernel}x{self.kernel}" + (f" s{self.stride}" if self.stride > 1 else "")

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride).with_channels(Channels.of(self.width))

    def cost(self, x: Shape) -> cost.Cost:
        y = self.out(x)
        return cost.conv(x.channels, y.channels, self.kernel, y.positions) + cost.norm(y.channels)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        c_out = self.out(x).channels
        conv = nn.Conv2d(x.channels.size, c_out.size, self.kernel, self.stride, self.kernel // 2, bias=False)
        return nn.Sequential(conv, builder.norm(c_out), nn.Hardswish())
