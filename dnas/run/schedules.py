"""Schedules over the epochs, as plain functions of progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dnas.errors import check_range


@dataclass(frozen=True)
class OptimConfig:
    """How weights are trained.

    Args:
        epochs: passes over the training images.
        lr: peak learning rate of Adam.
        weight_decay: L2 on the weights.
        warmup: epochs of linear warm-up; a cosine to 1 % of the peak follows.
        identities: P, identities in a batch.
        images: K, images of each.
        dcs_temperature: temperature of DCS-Attention's channel masks in the first epoch.
        dcs_temperature_end: the same in the last epoch.
    """

    epochs: int = 60
    lr: float = 1e-3
    weight_decay: float = 5e-4
    warmup: int = 3
    identities: int = 16
    images: int = 4
    dcs_temperature: float = 1.0
    dcs_temperature_end: float = 0.3

    def __post_init__(self) -> None:
        check_range(self, "optim.", 1, math.inf, "epochs")
        check_range(self, "optim.", 2, math.inf, "identities", "images")
        check_range(self, "optim.", 0, math.inf, "warmup", "lr", "weight_decay")
        check_range(self, "optim.", 1e-3, 1e3, "dcs_temperature", "dcs_temperature_end")

    def lr_at(self, progress: float) -> float:
        """Learning rate at `progress` (epochs done so far, fractions included)."""
        if progress < self.warmup:
            return self.lr * (0.1 + 0.9 * progress / self.warmup)
        share = (progress - self.warmup) / max(self.epochs - self.warmup, 1e-9)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def geometric(start: float, end: float, epoch: int, epochs: int) -> float:
    """From `start` in the first epoch to `end` in the last, by a constant factor (FBNet's annealing)."""
    if epochs == 1:
        return start
    return float(start * (end / start) ** (min(epoch, epochs - 1) / (epochs - 1)))
