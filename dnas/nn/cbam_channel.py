"""The channel half of CBAM (arXiv 1807.06521) with a gate that starts at one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dnas.nn.gates import gate
from dnas.nn.squeeze_excite import SqueezeExcite, SqueezeExciteModule
from dnas.space.cost import Cost
from dnas.space.holes import Shape
from dnas.space.spec import Builder


@dataclass(frozen=True)
class CBAMChannel(SqueezeExcite):
    """x * 2 sigmoid(f(mean(x)) + f(max(x))), one perceptron f for both poolings."""

    @property
    def label(self) -> str:
        return "CBAM channel"

    def cost(self, x: Shape) -> Cost:
        once = super().cost(x)
        return Cost(once.macs + once.macs, once.params)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return CBAMChannelModule(x.channels, self.squeezed(x.channels), builder)


class CBAMChannelModule(SqueezeExciteModule):
    """x (B, C, H, W) -> the same shape. Masked channels are zero, so is what they add to the perceptron."""

    def gates(self, x_BCHW: Tensor) -> Tensor:
        z_BC = self.perceptron(x_BCHW.mean((2, 3))) + self.perceptron(x_BCHW.amax((2, 3)))
        return gate(z_BC)[:, :, None, None]
