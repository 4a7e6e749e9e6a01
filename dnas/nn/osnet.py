"""OSNet (Zhou et al., ICCV 2019, arXiv 1905.00953) under the parameter names of its authors' published weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from dnas.nn.pretrained import BackbonePart
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec

STREAMS = 4
"""Parallel streams of a block, of 1 to 4 light convolutions: receptive fields of 3 to 9."""
SQUEEZE = 16
"""Reduction of the gate that weighs the streams."""


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, and ReLU if `act`."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class LightConv(nn.Module):
    """1x1 convolution, depthwise 3x3, batch norm, ReLU."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 1, bias=False)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        self.bn = nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn(self.conv2(self.conv1(x))))
        return y


class Gate(nn.Module):
    """Each channel times a factor between 0 and 1 that the map's own mean decides; shared by the streams."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(c, squeezed(c), 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(squeezed(c), c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.fc2(self.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return y


class Block(nn.Module):
    """The omni-scale residual block."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        c = bottleneck(c_out)
        self.conv1 = ConvNorm(c_in, c)
        for stream in range(STREAMS):
            name = f"conv2{'abcd'[stream]}"
            self.add_module(name, nn.Sequential(*(LightConv(c) for _ in range(stream + 1))) if stream else LightConv(c))
        self.gate = Gate(c)
        self.conv3 = ConvNorm(c, c_out, act=False)
        self.downsample = ConvNorm(c_in, c_out, act=False) if c_in != c_out else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        entering = self.conv1(x)
        streams = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        mixed = sum(self.gate(stream(entering)) for stream in streams)  # type: ignore[operator]
        y: Tensor = self.relu(self.conv3(mixed) + self.downsample(x))
        return y


def bottleneck(c_out: int) -> int:
    return max(1, c_out // 4)


def squeezed(c: int) -> int:
    return max(1, c // SQUEEZE)


def conv_norm(c_in: int, c_out: int, kernel: int, positions: int) -> cost.Cost:
    return cost.conv(c_in, c_out, kernel, positions) + cost.norm(c_out)


@dataclass(frozen=True)
class OSNetStem(Spec):
    """Convolution 7x7 (stride 2) and max-pooling (stride 2); `small`: 3x3 with stride 1, for small images."""

    width: int = 64
    small: bool = False

    @property
    def label(self) -> str:
        return "stem conv 3x3, max-pool s2" if self.small else "stem conv 7x7 s2, max-pool s2"

    def _conv(self) -> tuple[int, int]:
        return (3, 1) if self.small else (7, 2)

    def out(self, x: Shape) -> Shape:
        return x.down(self._conv()[1]).down(2).with_channels(Channels.of(self.width))

    def cost(self, x: Shape) -> cost.Cost:
        kernel, stride = self._conv()
        return conv_norm(x.channels.size, self.width, kernel, x.down(stride).positions)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        part = BackbonePart()
        part.conv1 = ConvNorm(x.channels.size, self.width, *self._conv())
        part.maxpool = nn.MaxPool2d(3, 2, 1)
        return part


@dataclass(frozen=True)
class OSNetStage(Spec):
    """`blocks` omni-scale blocks, then, if `reduce`, a 1x1 convolution and 2x2 average pooling; `index` of convN."""

    index: int
    width: int
    blocks: int
    reduce: bool

    @property
    def label(self) -> str:
        return f"{self.blocks} x omni-scale block" + (", 1x1, avg-pool s2" if self.reduce else "")

    def out(self, x: Shape) -> Shape:
        y = x.with_channels(Channels.of(self.width))
        return Shape(y.channels, max(1, y.height // 2), max(1, y.width // 2)) if self.reduce else y

    def cost(self, x: Shape) -> cost.Cost:
        n, c_in, c_out, c = x.positions, x.channels.size, self.width, bottleneck(self.width)
        light = cost.conv(c, c, 1, n) + cost.depthwise(c, 3, n) + cost.norm(c)
        gate = cost.conv(c, squeezed(c), 1, 1, bias=True) + cost.conv(squeezed(c), c, 1, 1, bias=True)
        total = cost.Cost()
        for _ in range(self.blocks):
            total += conv_norm(c_in, c, 1, n) + sum([light] * (STREAMS * (STREAMS + 1) // 2), gate)
            total += conv_norm(c, c_out, 1, n)
            total += cost.Cost(cost.Count.of((STREAMS - 1) * 2 * c * squeezed(c)))  # one gate, run for every stream
            total += conv_norm(c_in, c_out, 1, n) if c_in != c_out else cost.Cost()
            c_in = c_out
        return total + (conv_norm(c_out, c_out, 1, n) if self.reduce else cost.Cost())

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        widths = [x.channels.size, *[self.width] * self.blocks]
        layers: list[nn.Module] = [Block(a, b) for a, b in pairwise(widths)]
        if self.reduce:
            kernel = (min(2, x.height), min(2, x.width))
            layers.append(nn.Sequential(ConvNorm(self.width, self.width), nn.AvgPool2d(kernel, kernel)))
        part = BackbonePart()
        part.add_module(f"conv{self.index}", nn.Sequential(*layers))
        return part


@dataclass(frozen=True)
class OSNetHead(Spec):
    """1x1 convolution, global average, linear layer to the feature (with batch norm and ReLU): D x 1 x 1."""

    width: int
    feature: int

    @property
    def label(self) -> str:
        return f"conv 1x1, mean, linear {self.feature}"

    def out(self, x: Shape) -> Shape:
        return Shape(Channels.of(self.feature), 1, 1)

    def cost(self, x: Shape) -> cost.Cost:
        linear = cost.conv(self.width, self.feature, 1, 1, bias=True) + cost.norm(self.feature)
        return conv_norm(x.channels.size, self.width, 1, x.positions) + linear

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return OSNetHeadModule(x.channels.size, self.width, self.feature)


class OSNetHeadModule(BackbonePart):
    """Maps (B, C, H, W) -> (B, D, 1, 1)."""

    def __init__(self, c_in: int, width: int, feature: int) -> None:
        super().__init__()
        self.conv5 = ConvNorm(c_in, width)
        self.fc = nn.Sequential(nn.Linear(width, feature), nn.BatchNorm1d(feature), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        feature: Tensor = self.fc(self.conv5(x).mean((2, 3)))
        return feature[:, :, None, None]
