"""The operations on a cell's edges (DARTS, arXiv 1806.09055): C channels in, C channels out, stride 1 or 2.

Shapes: B batch, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.conv import StridedPointwise
from dnas.space import cost
from dnas.space.canonical import added
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Leaf, Spec


@dataclass(frozen=True)
class NormConv(Spec):
    """ReLU, convolution, batch norm. 1x1, it fits a cell's input, or steps down where `skip` cannot.

    `width` none: as many channels as come in.
    """

    width: int | None = None
    stride: int = 1
    kernel: int = added(1, before=1)

    @property
    def label(self) -> str:
        return f"conv {self.kernel}x{self.kernel}" + (f" s{self.stride}" if self.stride > 1 else "")

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride).with_channels(Channels.of(self.width) if self.width else x.channels)

    def cost(self, x: Shape) -> cost.Cost:
        y = self.out(x)
        return cost.conv(x.channels, y.channels, self.kernel, y.positions) + cost.norm(y.channels)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        c_in, c_out = x.channels, self.out(x).channels
        if self.kernel == 1:
            conv: nn.Module = StridedPointwise(c_in.size, c_out.size, self.stride)
        else:
            conv = nn.Conv2d(c_in.size, c_out.size, self.kernel, self.stride, self.kernel // 2, bias=False)
        return nn.Sequential(nn.ReLU(), conv, builder.norm(c_out))


@dataclass(frozen=True)
class SeparableConv(Spec):
    """ReLU, depthwise k x k, 1x1, batch norm, `times` times over; the first time with the stride."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    times: int = 2

    @property
    def label(self) -> str:
        kind = "dilated" if self.dilation > 1 else "separable"
        return f"{kind} {self.kernel}x{self.kernel}" + (f" s{self.stride}" if self.stride > 1 else "")

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride)

    def cost(self, x: Shape) -> cost.Cost:
        c, positions = x.channels, self.out(x).positions
        once = cost.depthwise(c, self.kernel, positions) + cost.conv(c, c, 1, positions) + cost.norm(c)
        return sum([once] * self.times, cost.Cost())

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        c, layers = x.channels, []
        padding = self.kernel // 2 * self.dilation
        for time in range(self.times):
            stride = self.stride if time == 0 else 1
            layers += [
                nn.ReLU(),
                nn.Conv2d(
                    c.size, c.size, self.kernel, stride, padding, self.dilation, groups=c.size, bias=False
                ),
                nn.Conv2d(c.size, c.size, 1, bias=False),
                builder.norm(c),
            ]  # fmt: skip
        return nn.Sequential(*layers)


@dataclass(frozen=True)
class Pool(Spec):
    """Average or maximum over 3 x 3 positions, then batch norm if there is `norm`."""

    kind: Literal["max", "avg"]
    stride: int = 1
    norm: bool = added(True, before=True)

    @property
    def label(self) -> str:
        return f"{self.kind} pool 3x3" + (f" s{self.stride}" if self.stride > 1 else "")

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride)

    def cost(self, x: Shape) -> cost.Cost:
        return cost.norm(x.channels) if self.norm else cost.Cost()

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        if self.kind == "max":
            pool: nn.Module = nn.MaxPool2d(3, self.stride, 1)
        else:
            pool = nn.AvgPool2d(3, self.stride, 1, count_include_pad=False)
        return nn.Sequential(pool, builder.norm(x.channels)) if self.norm else pool


@dataclass(frozen=True)
class Zero(Spec):
    """No edge: the output is zero."""

    stride: int = 1
    idle = True

    @property
    def label(self) -> str:
        return "zero"

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride)

    def cost(self, x: Shape) -> cost.Cost:
        return cost.Cost()

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return ZeroModule(self.stride)


class ZeroModule(nn.Module):
    """x (B, C, H, W) -> zeros (B, C, ceil(H / s), ceil(W / s))."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.zeros_like(x_BCHW[:, :, :: self.stride, :: self.stride])


@dataclass(frozen=True)
class HalfThen(Spec):
    """Average over 2 x 2 positions, then an operation that has no stride of its own (an attention cell)."""

    operation: Spec

    @property
    def attention(self) -> bool:  # type: ignore[override]
        return self.operation.attention

    @property
    def label(self) -> str:
        return f"{self.operation.label}, halved"

    def out(self, x: Shape) -> Shape:
        return self.operation.out(x.down(2))

    def cost(self, x: Shape) -> cost.Cost:
        return self.operation.cost(x.down(2))

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        for leaf in self.operation.leaves(x.down(2)):
            whole = leaf.spec if leaf.x != x.down(2) else HalfThen(leaf.spec)
            yield replace(leaf, spec=whole, x=x if isinstance(whole, HalfThen) else leaf.x)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return nn.Sequential(Half(), self.operation.build(x.down(2), builder))


class Half(nn.Module):
    """x (B, C, H, W) -> means over 2 x 2 positions (B, C, ceil(H / 2), ceil(W / 2))."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.avg_pool2d(x_BCHW, 2, ceil_mode=True, count_include_pad=False)
