"""Schedules over the epochs, as plain functions of progress."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from dnas.errors import UserError, check_range
from dnas.run.finite import OnNonfinite
from dnas.run.parameters import Factors, groups, limited, refuse_ungrouped, set_rate

REACH, LARGEST = 5.0, 0.03
"""How far the logits of a selection get over a training, and in one step, where `selection_lr` is not given: by
held-out identities of two data sets (docs/results/selection.md)."""
FIXED = 3.0
"""The factor where that is no measure: logits without a limit, SGD."""


@dataclass(frozen=True)
class OptimConfig:
    """How weights are trained.

    Args:
        epochs: passes over the training images.
        optimiser: adam, adamw (weight decay apart from the gradient) or sgd (momentum 0.9, Nesterov).
        lr: peak learning rate.
        weight_decay: L2 on the weights of convolutions and linear layers; on nothing else.
        selection_lr: factor on the learning rate of what selects channels (logits, gain and temperature of attention);
            none: 1 in the warm-up, and then what lets a logit move by 5 over the training, with at most 0.03 in a step;
            at least 1; but 3 where a cell has logits without a limit (`dcs`), and for sgd, whose steps are not of the
            learning rate's size.
        warmup: epochs of linear warm-up from a tenth of the peak.
        schedule: what follows: a `cosine` to 1 % of the peak, or `step`: a tenth after every milestone.
        milestones: shares of the epochs at which the `step` schedule goes down.
        identities: P, identities in a batch.
        images: K, images of each.
        batch: images in a batch where they are drawn one by one (classify).
        dcs_temperature: temperature of DCS-Attention's channel masks in the first epoch.
        dcs_temperature_end: the same in the last epoch.
        on_nonfinite: what a loss or gradient that is not finite does: `stop` the run, its last good state kept, or
            `skip` the step and count it in the log (it then waits for the device in every step; 21 in a row stop it).
    """

    epochs: int = 60
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 5e-4
    selection_lr: float | None = None
    warmup: int = 3
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: list[float] = field(default_factory=lambda: [0.33, 0.58])
    identities: int = 16
    images: int = 4
    batch: int = 64
    dcs_temperature: float = 1.0
    dcs_temperature_end: float = 0.3
    on_nonfinite: OnNonfinite = "stop"

    def __post_init__(self) -> None:
        check_range(self, "optim.", 1, math.inf, "epochs")
        check_range(self, "optim.", 2, math.inf, "identities", "images", "batch")
        check_range(self, "optim.", 0, math.inf, "warmup", "lr", "weight_decay")
        if self.selection_lr is not None:
            check_range(self, "optim.", 0, math.inf, "selection_lr")
        if not all(0 < share < 1 for share in self.milestones):
            raise UserError(
                f"optim.milestones: found {self.milestones}, allowed: shares of the epochs, between 0 and 1"
            )
        check_range(self, "optim.", 1e-3, 1e3, "dcs_temperature", "dcs_temperature_end")

    def warming(self, progress: float) -> bool:
        """Whether the warm-up goes on at `progress` (epochs done so far, fractions included)."""
        return progress < self.warmup

    def lr_at(self, progress: float) -> float:
        """Learning rate at `progress` (epochs done so far, fractions included)."""
        if self.warming(progress):
            return self.lr * (0.1 + 0.9 * progress / self.warmup)
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(progress >= share * self.epochs for share in self.milestones)
        share = (progress - self.warmup) / max(self.epochs - self.warmup, 1e-9)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

    def selection_factors(self, steps: int, limited: bool) -> Factors:
        """On the learning rate of what selects channels.

        One in the warm-up, where none is given: with larger steps untrained features close the branch, gain and all,
        before they have learnt anything (docs/results/selection.md).

        Args:
            steps: of an epoch.
            limited: the logits of every selection have a limit (`dnas.run.parameters.limited`).
        """
        if self.selection_lr is not None:
            return Factors(self.selection_lr, self.selection_lr)
        if self.optimiser == "sgd" or not limited:
            return Factors(FIXED, FIXED)
        warming, after = self._ways(steps)
        return Factors(1.0, max(1.0, min((REACH - warming) / after, LARGEST / self.lr)) if after > 0 else 1.0)

    def reach(self, steps: int, factors: Factors) -> float:
        """How far a bias that selects channels gets if every step pushes it the same way: the sum of Adam's rates.

        Args:
            steps: of an epoch.
            factors: on its learning rate.

        Returns:
            Infinity for sgd, whose steps are as large as the gradient.
        """
        if self.optimiser == "sgd":
            return math.inf
        return sum(factor * way for factor, way in zip(factors, self._ways(steps), strict=True))

    def _ways(self, steps: int) -> tuple[float, float]:
        """The sums of the learning rates of all steps in the warm-up, and after it."""
        found = dict.fromkeys((True, False), 0.0)
        for epoch in range(self.epochs):
            found[self.warming(epoch)] += steps * self.lr_at(epoch + 0.5)
        return found[True], found[False]


def make_optimiser(net: nn.Module, optim: OptimConfig, steps: int) -> torch.optim.Optimizer:
    """The optimiser of a network's weights: parameters in groups by kind (`dnas.run.parameters`).

    Args:
        steps: of an epoch.
    """
    parts = groups(net, optim.weight_decay, optim.selection_factors(steps, limited(net)))
    made: torch.optim.Optimizer
    if optim.optimiser == "sgd":
        made = torch.optim.SGD(parts, optim.lr, momentum=0.9, nesterov=True)
    else:
        made = (torch.optim.AdamW if optim.optimiser == "adamw" else torch.optim.Adam)(parts, optim.lr)
    set_rate(made, optim.lr, False)
    made.register_load_state_dict_pre_hook(refuse_ungrouped)
    return made


def geometric(start: float, end: float, epoch: int, epochs: int) -> float:
    """From `start` in the first epoch to `end` in the last, by a constant factor (FBNet's annealing)."""
    if epochs == 1:
        return start
    return float(start * (end / start) ** (min(epoch, epochs - 1) / (epochs - 1)))
