"""A convolution with batch norm and activation: stems and heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dnas.space import cost
from dnas.space.canonical import added
from dnas.space.holes import Channels, Shape, Width
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class ConvNormAct(Spec):
    """Convolution k x k, batch norm, h-swish if `activation`. Output channels x ceil(H / s) x ceil(W / s)."""

    width: int | Width
    kernel: int = 3
    stride: int = 1
    activation: bool = added(True, before=True)

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
        return nn.Sequential(conv, builder.norm(c_out), *([nn.Hardswish()] if self.activation else []))


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride.

    On CPUs with AVX-512, torch 2.14 writes past its memory in the backward pass of such a convolution of fewer than 16
    channels-last channels. There the positions are picked first, which is the same.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__(c_in, c_out, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        step = self.stride[0]
        if step > 1 and self.in_channels < 16 and input.device.type == "cpu":
            return F.conv2d(input[:, :, ::step, ::step], self.weight)
        return super().forward(input)
