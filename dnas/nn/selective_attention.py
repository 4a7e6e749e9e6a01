"""Selective attention: DCS-Attention whose selection is moved by the data from the first steps on.

    z = x / rms(x)                          tokens of an image, of unit mean square over positions and channels
    theta = z W_t / sqrt(C) + b_t           limited to [-LIMIT, LIMIT], its gradient passed through
    M = as in DCS-Attention, from theta
    c = z * M / rms(z * M)                  selected tokens, again of unit mean square
    A = softmax(exp(s) c c^T / C)
    Y = A x,   out = x + norm(Y), the norm's gain small at the start

Differences from `dnas.nn.dcs_attention`, each with its reason:
 - tokens are normalised by image, and the temperature exp(-s) is learned. Raw tokens have affinities of 60 to 255
   in a row: every position attends to itself, and the mask has nothing to gain. Not token by token (a cosine): an
   affinity in which all tokens weigh the same hardly changes a mean over the positions, which is what the last stage
   is pooled to, and a token with no channel left would have no direction; here it looks at all positions alike;
 - what is selected is normalised again: else closing any channel makes the attention flatter, and every theta follows
   the gradient of the temperature, which has a parameter of its own;
 - the gain starts at `gain`, not at zero, where no gradient reaches theta;
 - b_t starts at `start`: at 4 the straight-through gradient is a quarter of what it is at 1;
 - W_t acts on tokens of length about one: Adam moves every weight by the learning rate a step, and C of them would
   outrun b_t, whose gradient is a mean over all positions and has far less noise;
 - theta is limited: far below zero noise would open nothing, and a channel that is closed everywhere gets no gradient.

`UnselectiveAttention` is the same with M = 1: the control that isolates the effect of selecting.
Shapes: B batch, C channels, H W, N = H * W tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.channel_selection import ChannelSelection
from dnas.nn.dcs_attention import Selecting
from dnas.nn.non_local import NonLocalModule
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, Spec

LIMIT = 3.0
"""Of |theta|: in training a channel is open with a probability of 5 to 95 %."""

LEAST = 0.01
"""Added to the mean square of what is selected: it stays small where next to nothing is."""


@dataclass(frozen=True)
class UnselectiveAttention(Spec):
    """Self-attention between the positions of a feature map, of normalised tokens, with a learned temperature.

    Args:
        stride: keys and values are average-pooled by this factor, for maps with many positions.
        scale: inverse temperature at the start, exp(s).
        gain: of the branch's norm at the start.
    """

    stride: int = 1
    scale: float = 6.0
    gain: float = 0.1
    attention = True

    @property
    def label(self) -> str:
        return "unselective attention" + (f" s{self.stride}" if self.stride > 1 else "")

    def cost(self, x: Shape) -> cost.Cost:
        products = cost.attention(x.channels, x.positions, x.down(self.stride).positions)
        return products + cost.norm(x.channels) + cost.Cost(params=cost.Count.of(1))

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return UnselectiveAttentionModule(self, x.channels, builder)


@dataclass(frozen=True)
class SelectiveAttention(UnselectiveAttention):
    """The same with queries and keys of selected channels.

    Args:
        start: theta at the start; above zero, so that in inference everything is selected.
    """

    start: float = 1.0

    @property
    def label(self) -> str:
        return "selective attention" + (f" s{self.stride}" if self.stride > 1 else "")

    def cost(self, x: Shape) -> cost.Cost:
        return super().cost(x) + cost.conv(x.channels, x.channels, 1, x.positions, bias=True)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return SelectiveAttentionModule(self, x.channels, builder)


class LimitedSelection(ChannelSelection):
    """A selection that can always be undone: theta (B, N, C) stays where noise opens and closes channels."""

    limited = True

    def __init__(self, c: Channels, builder: Builder, start: float) -> None:
        super().__init__(c, builder)
        nn.init.constant_(self.logits.bias, start)

    def theta(self, x_BNC: Tensor) -> Tensor:
        weight_CC = self.logits.weight * self.channels() ** -0.5  # of the weight: a pass over the tokens less
        theta_BNC = F.linear(x_BNC, weight_CC, self.logits.bias)
        with torch.no_grad():  # in place, unseen by autograd: the gradient passes
            theta_BNC.clamp_(-LIMIT, LIMIT)
        return theta_BNC


class UnselectiveAttentionModule(NonLocalModule):
    """x (B, C, H, W) -> the same shape. Memory grows linearly in N."""

    limited = True

    def __init__(self, spec: UnselectiveAttention, c: Channels, builder: Builder) -> None:
        super().__init__(c, spec.stride, False, builder)
        self.log_scale = nn.Parameter(torch.tensor(math.log(spec.scale)))
        nn.init.constant_(self.norm.weight, spec.gain)

    def selection_parameters(self) -> Iterator[nn.Parameter]:
        """What opens the branch at all: a kind of its own for the optimiser."""
        yield self.log_scale
        yield self.norm.weight

    def tokens(self, x_BNC: Tensor) -> Tensor:
        """z: mean square one over the positions and the channels in use."""
        return x_BNC * self._over_square(x_BNC, 1e-6).sqrt()

    def _over_square(self, x_BNC: Tensor, least: float) -> Tensor:
        """One over the mean square of every image (B, 1, 1), at most about 1 / `least`; of one it is one."""
        rms_B11 = torch.linalg.vector_norm(x_BNC, dim=(1, 2), keepdim=True) / (x_BNC.shape[1] * self.channels()) ** 0.5
        found_B11: Tensor = (1 + least) / (rms_B11.square() + least)
        return found_B11

    def scale(self, chosen_BNC: Tensor) -> Tensor | float:
        found: Tensor = self.log_scale.exp() / self.channels()
        return found


class SelectiveAttentionModule(UnselectiveAttentionModule, Selecting):
    """x (B, C, H, W) -> the same shape."""

    def __init__(self, spec: SelectiveAttention, c: Channels, builder: Builder) -> None:
        super().__init__(spec, c, builder)
        self.select = LimitedSelection(c, builder, spec.start)

    def chosen(self, x_BNC: Tensor) -> Tensor:
        masked: Tensor = x_BNC * self.select(x_BNC)
        return masked

    def scale(self, chosen_BNC: Tensor) -> Tensor | float:
        """With the normalisation of queries and of keys, which would each be a pass over them."""
        return super().scale(chosen_BNC) * self._over_square(chosen_BNC, LEAST)
