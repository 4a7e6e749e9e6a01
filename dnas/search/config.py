"""Settings of a search."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from dnas.data.augment import InputConfig
from dnas.errors import UserError, check_range
from dnas.loss.objective import LossConfig
from dnas.run.device import Device
from dnas.run.schedules import OptimConfig
from dnas.search.relaxation import Mode

SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class BudgetConfig:
    """What the derived network may cost.

    Args:
        macs: multiply-accumulates for one image, such as 300M or 12.5M; none: no limit.
        weight: lambda, weight of relu(log(E[cost] / budget)) in the loss of the logits.
    """

    macs: str | float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.macs, str) and not re.fullmatch(r"\d+(\.\d+)?(e\d+)?[KMG]?", self.macs):
            raise UserError(f"budget.macs: found '{self.macs}', allowed: a number with K, M or G, such as 300M")
        check_range(self, "budget.", 0, math.inf, "weight")

    @property
    def limit(self) -> float | None:
        """The budget as a number of MACs."""
        if self.macs is None or isinstance(self.macs, int | float):
            return self.macs
        number = self.macs.rstrip("KMG")
        return float(number) * SUFFIX[self.macs[len(number) :]]


@dataclass(frozen=True)
class ArchConfig:
    """How the architecture logits are trained.

    Args:
        mode: `full` runs every option of a choice, `sampled` only the drawn one.
        data: `split` trains weights on 80 % of each identity's images, logits on the others; `joint` both on all.
        lr: learning rate of Adam on the logits.
        temperature: tau of the Gumbel-softmax in the first epoch.
        temperature_end: tau in the last epoch.
        weights_only: share of the epochs at the start that train weights alone.
        entropy: weight of the mean entropy of the choices in the loss of the logits (0: off).
    """

    mode: Mode = "sampled"
    data: Literal["split", "joint"] = "split"
    lr: float = 0.02
    temperature: float = 5.0
    temperature_end: float = 0.5
    weights_only: float = 0.1
    entropy: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "arch.", 1e-3, 1e3, "temperature", "temperature_end")
        check_range(self, "arch.", 0, math.inf, "lr", "entropy")
        check_range(self, "arch.", 0, 0.99, "weights_only")


@dataclass(frozen=True)
class SearchConfig:
    """Search a space for an architecture.

    Args:
        data: data set in the layout of Market-1501.
        out: run folder to write.
        space: name of a search space, or a Python file that defines SPACE.
        seed: of everything random.
        holdout: share of the training identities that decisions are made on.
        eval_every: epochs between looks at the held-out identities with the derived network (0: at the end only).
        device: auto, cpu, cuda or mps.
    """

    data: str
    out: str
    space: str = "tiny_reid"
    seed: int = 0
    holdout: float = 0.1
    eval_every: int = 5
    device: Device = "auto"
    input: InputConfig = field(default_factory=InputConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(epochs=40))
    arch: ArchConfig = field(default_factory=ArchConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        check_range(self, "", 0.001, 0.999, "holdout")
        check_range(self, "", 0, math.inf, "seed", "eval_every")
