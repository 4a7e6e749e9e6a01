"""Pictures of a trained network at work, whatever its task: what looks at which."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dnas.data.images import Images
from dnas.errors import UserError
from dnas.eval.embed import embed
from dnas.run.device import Device
from dnas.task.images import ImageTask
from retrain.load import TrainedRun, load
from retrain.look import Look


def look_at(path: str | Path, data: str | None = None, device: Device = "auto", space: str | None = None) -> Look:
    """The looks at a run that its task allows.

    Raises:
        UserError: not a retraining, or no data to look at.
    """
    run = load(path, device, space)
    return Look(path, data, device, space) if run.config.task == "reid" else ClassLook(run, data)


class ClassLook(Look):
    """A classifier and the images of its test set: attention, channels, what speaks for a class, embedding."""

    ranks = has_cameras = False
    aim = "right class"

    def __init__(self, run: TrainedRun, data: str | None) -> None:
        self.run = run
        task = run.task(data)
        if not isinstance(task, ImageTask):
            raise UserError(f"{run.folder.path}: a run of task {run.config.task} has no images to draw")
        self.task = task
        self.queries = len(self.images)

    @cached_property
    def images(self) -> Images:
        return self.task.tested()

    @cached_property
    def embedding(self) -> Tensor:
        return embed(self.run.network, self.images)

    def chosen(self, count: int) -> list[int]:
        """Images of as many classes as there are, always the same ones."""
        order = np.argsort(self.images.pids, kind="stable")
        return order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)].tolist()  # type: ignore[no-any-return]

    def label(self, number: int) -> str:
        names = self.task.fingerprint.get("classes")
        place = int(self.images.pids[number]) - 1
        return str(names[place]) if isinstance(names, list) else f"class {place}"

    def wanted(self, numbers: Sequence[int]) -> Tensor:
        """The classifier's own vectors of the right classes."""
        labels = torch.from_numpy(self.images.pids[list(numbers)] - 1)
        weight_CD = self.run.network.classifier.weight.detach()
        return weight_CD[labels.to(weight_CD.device)]

    def ranked(self, count: int = 6, top: int = 10, best: bool = False) -> Figure:
        raise self._not("ranked lists")

    def distances(self) -> Figure:
        raise self._not("distances of identities")

    def _not(self, what: str) -> UserError:
        return UserError(f"{self.run.folder.path}: a run of task {self.run.config.task} has no {what}")
