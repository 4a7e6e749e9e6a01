"""A moving average of a network's weights and statistics, which is what is evaluated."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from dnas.nn.network import Network


class MovingAverage:
    """decay * average + (1 - decay) * weights, after every step; the first step sets it.

    torch.optim.swa_utils.AveragedModel does the same, but waits for the device in every step: it counts in a tensor.
    """

    def __init__(self, net: Network, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def follow(self, net: Network) -> None:
        """Whole numbers (counters) are copied; the statistics of batch norms are averaged like the weights."""
        pairs = list(zip(_tensors(self.net), _tensors(net), strict=True))
        real = [pair for pair in pairs if self.steps and pair[0].is_floating_point()]
        if real:
            torch._foreach_lerp_([old for old, _ in real], [new for _, new in real], 1 - self.decay)
        for old, new in pairs:
            if not (self.steps and old.is_floating_point()):
                old.copy_(new)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "net": self.net.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = int(state["steps"])
        self.net.load_state_dict(state["net"])


def _tensors(net: Network) -> list[Tensor]:
    return list(net.state_dict(keep_vars=True).values())
