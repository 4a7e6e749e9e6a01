"""MobileNetV2 (arXiv 1801.04381) from torchvision's blocks, as a description with attention after each stage."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from dnas.nn.conv import ConvNormAct
from dnas.nn.pretrained import BackbonePart, NamedSequence
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class MobileNetConv(ConvNormAct):
    """Convolution, batch norm, ReLU6: the first and the last layer; `index` as in torchvision's features.N."""

    index: int = 0

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        part = BackbonePart()
        c_out = self.out(x).channels.size
        layer = Conv2dNormActivation(x.channels.size, c_out, self.kernel, self.stride, activation_layer=nn.ReLU6)
        part.features = NamedSequence({str(self.index): layer})
        return part


@dataclass(frozen=True)
class MobileNetStage(Spec):
    """`blocks` inverted residuals, the first with the stride; `index` of the first as in torchvision's features.N."""

    index: int
    width: int
    blocks: int
    stride: int
    expand: int

    @property
    def label(self) -> str:
        return f"{self.blocks} x IR k3 e{self.expand}" + (f" s{self.stride}" if self.stride > 1 else "")

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride).with_channels(Channels.of(self.width))

    def cost(self, x: Shape) -> cost.Cost:
        y, total = self.out(x), cost.Cost()
        c_in, entering = x.channels.size, x.positions
        for _ in range(self.blocks):
            c_mid = c_in * self.expand
            if self.expand > 1:
                total += cost.conv(c_in, c_mid, 1, entering) + cost.norm(c_mid)
            total += cost.depthwise(c_mid, 3, y.positions) + cost.norm(c_mid)
            total += cost.conv(c_mid, self.width, 1, y.positions) + cost.norm(self.width)
            c_in, entering = self.width, y.positions
        return total

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        blocks = {str(self.index): InvertedResidual(x.channels.size, self.width, self.stride, self.expand)}
        for block in range(1, self.blocks):
            blocks[str(self.index + block)] = InvertedResidual(self.width, self.width, 1, self.expand)
        part = BackbonePart()
        part.features = NamedSequence(blocks)
        return part
