"""ResNet (arXiv 1512.03385) from torchvision's blocks, as a description with attention after each stage."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from dnas.nn.conv import StridedPointwise
from dnas.nn.pretrained import BackbonePart
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class ResNetStem(Spec):
    """Convolution 7x7 (stride 2) and max-pooling (stride 2); `small`: 3x3, stride 1, no pooling, for small images."""

    width: int = 64
    small: bool = False

    @property
    def label(self) -> str:
        return "stem conv 3x3" if self.small else "stem conv 7x7 s2, max-pool s2"

    def out(self, x: Shape) -> Shape:
        return (x if self.small else x.down(2).down(2)).with_channels(Channels.of(self.width))

    def cost(self, x: Shape) -> cost.Cost:
        kernel, positions = (3, x.positions) if self.small else (7, x.down(2).positions)
        return cost.conv(x.channels, self.width, kernel, positions) + cost.norm(self.width)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        part = BackbonePart()
        kernel, stride = (3, 1) if self.small else (7, 2)
        part.conv1 = nn.Conv2d(x.channels.size, self.width, kernel, stride, kernel // 2, bias=False)
        part.bn1 = nn.BatchNorm2d(self.width)
        part.relu = nn.ReLU(inplace=True)
        if not self.small:
            part.maxpool = nn.MaxPool2d(3, 2, 1)
        return part


@dataclass(frozen=True)
class ResNetStage(Spec):
    """`blocks` residual blocks of `planes` channels (x 4 out of a bottleneck); `index` as in torchvision's layerN."""

    index: int
    planes: int
    blocks: int
    stride: int
    bottleneck: bool

    @property
    def expansion(self) -> int:
        return int(Bottleneck.expansion if self.bottleneck else BasicBlock.expansion)

    @property
    def label(self) -> str:
        kind = "bottleneck" if self.bottleneck else "basic block"
        return f"{self.blocks} x {kind}" + (f" s{self.stride}" if self.stride > 1 else "")

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride).with_channels(Channels.of(self.planes * self.expansion))

    def cost(self, x: Shape) -> cost.Cost:
        y, p = self.out(x), self.planes
        c_out, total, c_in, entering = y.channels.size, cost.Cost(), x.channels.size, x.positions
        for block in range(self.blocks):
            if self.bottleneck:
                total += (
                    cost.conv(c_in, p, 1, entering)
                    + cost.conv(p, p, 3, y.positions)
                    + cost.conv(p, c_out, 1, y.positions)
                )
                total += cost.norm(p) + cost.norm(p) + cost.norm(c_out)
            else:
                total += (
                    cost.conv(c_in, p, 3, y.positions) + cost.conv(p, p, 3, y.positions) + cost.norm(p) + cost.norm(p)
                )
            if block == 0 and (self.stride > 1 or c_in != c_out):
                total += cost.conv(c_in, c_out, 1, y.positions) + cost.norm(c_out)
            c_in, entering = c_out, y.positions
        return total

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        block = Bottleneck if self.bottleneck else BasicBlock
        c_in, c_out = x.channels.size, self.planes * self.expansion
        downsample = None
        if self.stride > 1 or c_in != c_out:
            downsample = nn.Sequential(StridedPointwise(c_in, c_out, self.stride), nn.BatchNorm2d(c_out))
        blocks = [block(c_in, self.planes, self.stride, downsample)]
        blocks += [block(c_out, self.planes) for _ in range(1, self.blocks)]
        part = BackbonePart()
        part.add_module(f"layer{self.index}", nn.Sequential(*blocks))
        return part
