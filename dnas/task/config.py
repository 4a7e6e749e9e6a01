"""Settings that a search and a retraining have in common: the task, its data, and how weights are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dnas.data.augment import InputConfig
from dnas.data.protocol import Cameras
from dnas.errors import check_range
from dnas.loss.objective import LossConfig
from dnas.run.device import Device
from dnas.run.position import CheckpointConfig
from dnas.run.schedules import OptimConfig
from dnas.run.step import TrainConfig


@dataclass(frozen=True)
class JobConfig:
    """Train something on the images of a task.

    Args:
        data: data set (docs/data.md): a folder or CSV manifest; several with commas between, to train on all of them.
        out: run folder to write.
        task: what the network is for: `reid` (find the same identity again) or `classify` (say which class).
        seed: of everything random.
        cameras: what a query may be matched with, held out or tested: images of `other` cameras, or any but its own
            (`ignore`); `auto` is `other` where the data say which camera took an image (reid).
        holdout: share of the training identities (classify: images) that decisions are made on.
        holdout_seed: which of them; none: by `seed`.
        eval_every: epochs between looks at what is held out (0: at the end only).
        device: auto, cpu, cuda, cuda:N or mps.
    """

    data: str
    out: str
    task: str = "reid"
    cameras: Cameras = "auto"
    seed: int = 0
    holdout: float = 0.0
    holdout_seed: int | None = None
    eval_every: int = 0
    device: Device = "auto"
    input: InputConfig = field(default_factory=InputConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        check_range(self, "", 0, 0.999, "holdout")
        check_range(self, "", 0, math.inf, "seed", "eval_every")
        if self.holdout_seed is not None:
            check_range(self, "", 0, math.inf, "holdout_seed")

    @property
    def held_by(self) -> int:
        """The seed that says what is held out."""
        return self.seed if self.holdout_seed is None else self.holdout_seed
