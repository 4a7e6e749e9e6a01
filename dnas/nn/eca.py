"""Efficient channel attention (arXiv 1910.03151) with a gate that starts at one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dnas.nn.gates import gate, zero
from dnas.nn.looked import Looked
from dnas.space.cost import Cost, Count
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec


@dataclass(frozen=True)
class ECA(Spec):
    """x * 2 sigmoid(conv1d over channels of mean(x)).

    The kernel size is fixed: one that follows the width would make a masked and a sliced network differ.
    """

    kernel: int = 5
    attention = True

    @property
    def label(self) -> str:
        return f"ECA k{self.kernel}"

    def cost(self, x: Shape) -> Cost:
        return Cost(Count.of(x.channels, self.kernel), Count.of(self.kernel))

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return ECAModule(self.kernel)


class ECAModule(Looked):
    """x (B, C, H, W) -> the same shape. Masked channels are zero, like the padding beyond the last channel."""

    channel_word, gates_channels = "gate", True

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        zero(self.conv)

    def gates(self, x_BCHW: Tensor) -> Tensor:
        """What every channel is multiplied by (B, C, 1, 1)."""
        return gate(self.conv(x_BCHW.mean((2, 3))[:, None])[:, 0])[:, :, None, None]

    def channel_use(self, x: Tensor) -> Tensor:
        return self.gates(x)[:, :, 0, 0]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.gates(x_BCHW)
