"""Short trainings of plain networks on their own, in memory: what a supernet's verdict is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dnas.nn.network import Network
from dnas.nn.stages import Stages
from dnas.run import distributed, seeds
from dnas.run.folder import RunFolder
from dnas.run.loop import Loop
from dnas.run.position import CheckpointConfig, Pauses, Stop
from dnas.run.step import Stepper
from dnas.search.config import SearchConfig
from dnas.space.holes import Shape
from dnas.space.spec import Spec
from dnas.task.config import JobConfig
from dnas.task.task import Task


class Alone(Loop):
    """A network of its own, from scratch, by the settings of a job.

    Args:
        config: how it is trained, and the seed.
        task: of the search: its training images, judged on what it holds out.
    """

    title = "alone"

    def __init__(self, config: JobConfig, task: Task, spec: Spec, x: Shape) -> None:
        super().__init__()
        stages = Stages.of(spec, x).channels
        needs = replace(task.needs, channels=spec.out(x).channels.size, stages=stages)  # its own, not the supernet's
        self.config, self.task = config, task.fresh(config, needs)
        torch.manual_seed(seeds.derive(config.seed, "init"))
        net = task.network(spec, x, task.classes)
        net.with_stages = config.loss.on_stages
        net.to(needs.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stepper = Stepper(net, self.task.objective, config.optim, config.train, self.task.count("weights"))

    def step(self, number: int, inputs: Tensor, target: Any, at: float, last: bool) -> None:
        self.count(self.stepper(inputs, target, at, last))

    def look(self, metrics: dict[str, Any], last: bool) -> tuple[dict[str, float], Sequence[str]]:
        return {}, ()

    def for_statistics(self) -> Network:
        return self.net

    def finish(self, folder: RunFolder) -> None:
        """Nothing is written."""

    def score(self) -> float:
        """Train to the end; the number that decides, on what is held out."""
        pauses = Pauses(CheckpointConfig(), self.position, Stop(), lambda: None)
        while self.position.epoch < self.config.optim.epochs:
            self.train_epoch(pauses)
            self.stepper.watch.check()
            self.position.finish()
        return self.task.evaluate(self.stepper.final)[self.task.metric]


def short_training(config: SearchConfig, task: Task, spec: Spec, x: Shape, epochs: int, number: int = 0) -> float:
    """The number that decides, on what is held out, of a network trained from scratch as the supernet was, but shortly.

    Args:
        task: of the search.
        number: of the training; another one has another seed.
    """
    short = replace(config.optim, epochs=epochs, warmup=min(config.optim.warmup, epochs // 4))
    own = replace(config, optim=short, seed=config.seed + 1000 * (number + 1))
    with distributed.apart():
        return Alone(own, task, spec, x).score()
