"""What the gating cells share: a gate 2 sigmoid(z) that is one where z is zero."""

from __future__ import annotations

from torch import Tensor, nn


def gate(z: Tensor) -> Tensor:
    """2 sigmoid(z): one at z = 0, so a cell whose last layer is zero changes nothing."""
    return 2 * z.sigmoid()


def zero(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    """Make a layer output zero at the start."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
