"""Networks of a supernet on their own: with its weights, and batch norm statistics that are theirs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from dnas.nn.network import Network
from dnas.run import distributed, seeds
from dnas.search.supernet import inherit
from dnas.space.spec import Choices, Space, fill
from dnas.task.task import Task


@dataclass(frozen=True)
class Children:
    """Makes children of a supernet.

    Args:
        supernet: gives the network whose weights they take.
        task: gives the head, and the batches for the statistics of batch norms.
    """

    space: Space
    supernet: Callable[[], Network]
    task: Task
    seed: int

    def child(self, choices: Choices) -> Network:
        """The plain network of these choices with the supernet's weights, by slicing."""
        supernet = self.supernet()
        device = next(supernet.parameters()).device
        child = self.task.network(fill(self.space.spec, choices), self.space.input, self.task.classes)
        child.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        inherit(child, supernet, choices)
        return child

    @torch.no_grad()
    def recalibrated(self, choices: Choices, batches: int | None = None) -> Network:
        """The child with batch norm statistics of its own, averaged over the task's calibration batches.

        Args:
            batches: over so many of them alone.
        """
        child = self.child(choices)
        for norm in (module for module in child.modules() if isinstance(module, _BatchNorm)):
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        torch.manual_seed(seeds.derive(self.seed, "recalibrate"))  # DCS draws noise in training mode
        child.train()
        with distributed.apart():  # every rank makes the same child
            for inputs in itertools.islice(self.task.calibration(), batches):
                child(inputs)
        return child.eval()

    def score(self, choices: Choices, task: Task, batches: int | None = None) -> float:
        """The number that decides, of a recalibrated child on what is held out."""
        return task.evaluate(self.recalibrated(choices, batches))[task.metric]
