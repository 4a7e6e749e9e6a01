"""Inverted residual block (MobileNetV2, arXiv 1801.04381; h-swish as in FBNetV2, arXiv 2004.05565)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dnas.space import cost
from dnas.space.holes import Channels, Shape, Width
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class InvertedResidual(Spec):
    """1x1 expansion, depthwise k x k with stride, linear 1x1 projection.

    `residual` is said by the description: two open widths that happen to agree must not decide it.
    """

    width: int | Width
    kernel: int = 3
    expand: int = 6
    stride: int = 1
    residual: bool = False

    @property
    def label(self) -> str:
        words = [f"IR k{self.kernel} e{self.expand}"]
        words += [f"s{self.stride}"] if self.stride > 1 else []
        return " ".join(words + (["+ residual"] if self.residual else []))

    def out(self, x: Shape) -> Shape:
        return x.down(self.stride).with_channels(Channels.of(self.width))

    def cost(self, x: Shape) -> cost.Cost:
        y, c_mid = self.out(x), x.channels * self.expand
        total = cost.depthwise(c_mid, self.kernel, y.positions) + cost.norm(c_mid)
        total += cost.conv(c_mid, y.channels, 1, y.positions) + cost.norm(y.channels)
        if self.expand > 1:
            total += cost.conv(x.channels, c_mid, 1, x.positions) + cost.norm(c_mid)
        return total

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return InvertedResidualModule(self, x.channels, builder)


class InvertedResidualModule(nn.Module):
    """x (B, C, H, W) -> (B, width, ceil(H / s), ceil(W / s))."""

    def __init__(self, spec: InvertedResidual, c_in: Channels, builder: Builder) -> None:
        super().__init__()
        c_mid, c_out = c_in * spec.expand, Channels.of(spec.width)
        self.residual = spec.residual
        if spec.expand > 1:
            self.expand: nn.Module = nn.Conv2d(c_in.size, c_mid.size, 1, bias=False)
            self.norm_expand: nn.Module = builder.norm(c_mid)
        else:
            self.expand = self.norm_expand = nn.Identity()
        kernel = spec.kernel
        self.depthwise = nn.Conv2d(
            c_mid.size, c_mid.size, kernel, spec.stride, kernel // 2, groups=c_mid.size, bias=False
        )
        self.norm_depthwise = builder.norm(c_mid)
        self.project = nn.Conv2d(c_mid.size, c_out.size, 1, bias=False)
        self.norm_project = builder.norm(c_out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = x_BCHW
        if not isinstance(self.expand, nn.Identity):
            y = F.hardswish(self.norm_expand(self.expand(y)))
        y = F.hardswish(self.norm_depthwise(self.depthwise(y)))
        y = self.norm_project(self.project(y))
        return x_BCHW + y if self.residual else y
