"""Epochs of steps over the batches of a task, from wherever the state is: what a search and a retraining share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dnas.eval.selection import selection_warnings
from dnas.nn.channel_selection import set_temperature
from dnas.nn.network import Network
from dnas.run import distributed, seeds
from dnas.run.folder import RunFolder
from dnas.run.memory import keep_blocks
from dnas.run.position import Pauses, Position, stoppable
from dnas.run.progress import EpochProgress
from dnas.run.schedules import geometric
from dnas.run.step import Stepper
from dnas.task.config import JobConfig
from dnas.task.task import Task


class Loop(ABC):
    """State of a training, and how it goes on. A subclass sets these, says what a step is, and looks at the result.

    Args:
        title: what a person reads before the epochs.
    """

    title: str
    config: JobConfig
    task: Task
    stepper: Stepper
    position: Position

    def __init__(self) -> None:
        self.position = Position()
        self.started: object = None  # what is said of the weights that it starts from
        self.warned: set[str] = set()
        self.pauses: Pauses | None = None  # while it runs

    @property
    def net(self) -> Network:
        return self.stepper.net

    @abstractmethod
    def step(self, number: int, inputs: Tensor, target: Any, at: float, last: bool) -> None:
        """One step, counted in `position`.

        Args:
            number: of the step in its epoch.
            at: epochs done so far, fractions included.
            last: whether the epoch ends with it.
        """

    @abstractmethod
    def look(self, metrics: dict[str, Any], last: bool) -> tuple[dict[str, float], Sequence[str]]:
        """After an epoch, on every rank: add to its metrics. Returns news for people, and warnings."""

    @abstractmethod
    def finish(self, folder: RunFolder) -> None:
        """After the last epoch, on the first rank."""

    def in_inference(self) -> Network:
        """The network as it would be used now."""
        return self.stepper.final

    @abstractmethod
    def for_statistics(self) -> Network:
        """The network that passes over the data before an epoch go through."""

    def begin_epoch(self, epoch: int, start: int) -> None:  # noqa: B027 (a hook)
        """Before the first step that is still to be done (number `start`) of an epoch."""

    def epoch_metrics(self) -> dict[str, Any]:
        """What the log says of an epoch beside its losses."""
        return {}

    def written(self, folder: RunFolder, metrics: Mapping[str, Any]) -> None:  # noqa: B027 (a hook)
        """Write what else an epoch leaves behind, on the first rank, before its checkpoint."""

    def run(self, folder: RunFolder) -> None:
        """Train to the end, then finish; the first of several processes writes."""
        epochs, position, log = self.config.optim.epochs, self.position, folder.path / "log.txt"
        if self.stepper.device.type == "cpu":
            keep_blocks()
        with EpochProgress(self.title, epochs, position.epoch, log) as progress, stoppable() as stop:
            self.pauses = pauses = Pauses(self.config.checkpoint, position, stop, lambda: self._save(folder))
            if self.started is not None and distributed.rank() == 0:
                progress.say(str(self.started))
            while position.epoch < epochs:
                start = time.perf_counter()
                metrics = self.train_epoch(pauses)
                self.stepper.watch.check()
                trained = time.perf_counter() - start
                news, warnings = self.look(metrics, last=position.epoch + 1 == epochs)
                warnings = [*warnings, *self._selections(metrics, news)]
                position.finish()
                if distributed.rank() == 0:
                    folder.log(metrics, {"train_s": trained, "epoch_s": time.perf_counter() - start})
                    self.written(folder, metrics)
                    self._save(folder)
                    progress.epoch(position.epoch - 1, news)
                    self._warn(progress, warnings)
                distributed.wait_for_all()
                stop.check()
        if distributed.rank() == 0:
            self.finish(folder)
        distributed.wait_for_all()

    def _selections(self, metrics: dict[str, Any], news: dict[str, float]) -> list[str]:
        """What channel selections do, into the log, on the first rank; warnings from half-way on: they start open."""
        found = self.task.selections(self.in_inference()) if distributed.rank() == 0 else {}
        if not found:
            return []
        metrics |= {"selection_lr": self.stepper.selection_factors.after, "selection": found}
        news["selected"] = sum(use["share"] for use in found.values()) / len(found)
        if 2 * metrics["epoch"] < self.config.optim.epochs:
            return []
        return selection_warnings(found, self.stepper.reach)

    def _warn(self, progress: EpochProgress, warnings: Sequence[str]) -> None:
        """Each kind when it comes, and at the end, not in every epoch; the log of metrics has all of them."""
        kinds = {line.split(":")[0]: line for line in warnings}
        for kind, warning in kinds.items():
            if kind not in self.warned or self.position.epoch == self.config.optim.epochs:
                progress.say(f"warning: {warning}")
        self.warned = set(kinds)

    def train_epoch(self, pauses: Pauses) -> dict[str, Any]:
        """The steps of an epoch that are still to be done."""
        config, position, optim = self.config, self.position, self.config.optim
        epoch, done, steps = position.epoch, position.step, self.task.count("weights")
        mask_temperature = geometric(optim.dcs_temperature, optim.dcs_temperature_end, epoch, optim.epochs)
        for net in {self.net, self.stepper.final}:
            set_temperature(net, mask_temperature)
        if done == 0:
            self.task.begin_epoch(epoch, self.for_statistics)
        self.begin_epoch(epoch, done)
        self.net.train()
        for number, (inputs, target) in enumerate(self.task.batches("weights", epoch, done), start=done):
            torch.manual_seed(seeds.derive(config.seed, "noise", epoch, number))
            self.step(number, inputs, target, epoch + number / steps, last=number + 1 == steps)
            pauses.after_step(steps, ready=self.stepper.waiting == 0)
        return {
            "epoch": epoch,
            "lr": optim.lr_at(epoch),
            "mask_temperature": mask_temperature,
            **position.summary(),
            **self.epoch_metrics(),
        }

    def count(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of a step of the weights to the epoch's means."""
        self.position.count(terms, getattr(self.task.objective, "watched", None))

    def _save(self, folder: RunFolder) -> None:
        self.stepper.watch.check()
        if distributed.rank() == 0:
            folder.save(self.state(), self.position, self.config.checkpoint.keep)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, each with `state_dict` and `load_state_dict`."""
        return {"position": self.position, **self.stepper.parts()}

    def state(self) -> dict[str, Any]:
        """Everything that going on needs."""
        parts = {name: part.state_dict() for name, part in self.parts().items()}
        return parts

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
