"""A task on images that are decoded once: batches, augmentation, the class statistics' passes, calibration."""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dnas.data.augment import Augmenter, draw
from dnas.data.images import Images, decode
from dnas.data.splits import Split
from dnas.eval.embed import embed
from dnas.eval.information import Probe
from dnas.eval.selection import selection_report
from dnas.loss.objective import LossConfig, Objective
from dnas.nn.network import Network
from dnas.run import distributed, seeds
from dnas.task.config import JobConfig
from dnas.task.task import Needs, Part, Task

CALIBRATION_BATCH = 64
MOST_PROBED = 20_000_000
"""Images times classes: the information of larger held-out sets is left to `dnas probe`."""


def calibration_batches(images: int) -> int:
    """How many a network takes its batch norm statistics from: 20, of a small set what four passes would be."""
    return min(20, -(-4 * images // CALIBRATION_BATCH))


@dataclass(frozen=True)
class Parts:
    """The images of a task.

    Args:
        weights: what the weights are trained on.
        logits: what the logits of a search are trained on.
        held: what is held out.
        fingerprint: computes that of the whole data set.
    """

    weights: Split
    logits: Split
    held: Split
    fingerprint: Callable[[], dict[str, object]]


class ImageTask(Task):
    """Base of the tasks on labelled images. A subclass reads `parts`, draws `indices` and judges."""

    def __init__(self, config: JobConfig, needs: Needs) -> None:
        self.config, self.needs = config, needs
        with distributed.one_first():
            parts = self.read = self.parts()
        with distributed.one_first():
            self.fingerprint = parts.fingerprint()
            if needs.trained:
                self.train = self.decode(parts.weights)
                self.logit_images = self.train if parts.logits is parts.weights else self.decode(parts.logits)
            self.held_out: Images | None = self.decode(parts.held) if needs.trained and len(parts.held) else None
        self.held = self.held_out is not None
        self.classes = len(np.unique(parts.weights.pids))
        self.counts: dict[Part, int] = {}
        self.probes: dict[str, Probe] = {}
        self.augment = Augmenter(config.input)
        self.objective = self._objective()

    def _objective(self) -> Objective:
        needs = self.needs
        return Objective(self.loss_config(), self.classes, needs.channels, needs.stages).to(needs.device)

    @property
    def holdout(self) -> dict[str, Any]:
        """With a hash of the data and of which images of them are held out: the same split, or not."""
        found = hashlib.sha256(str(self.fingerprint["sha256"]).encode())
        rows = self.read.held.rows
        found.update(b"" if rows is None else np.sort(rows).astype("<i8").tobytes())
        return {**super().holdout, "sha256": found.hexdigest()[:16]}

    @abstractmethod
    def parts(self) -> Parts:
        """Read the data set."""

    @abstractmethod
    def tested(self) -> Images:
        """The images of the test set."""

    def sets(self) -> dict[str, Images]:
        """All images that there are, by what they are for."""
        parts = {"train": self.read.weights, "held_out": self.read.held}
        found = {name: self.decode(split) for name, split in parts.items() if len(split)}
        return found | {"test": self.tested()}

    @abstractmethod
    def indices(self, images: Images, epoch: int) -> NDArray[np.int64]:
        """The global batches of an epoch over these images, (steps, B), a function of (seed, epoch)."""

    def loss_config(self) -> LossConfig:
        """The loss as this task has it."""
        return self.config.loss

    def decode(self, split: Split) -> Images:
        """The images of a split at the size that the network takes."""
        return decode(split, self.needs.height, self.needs.width)

    def count(self, part: Part) -> int:
        if part not in self.counts:
            self.counts[part] = len(self.indices(self._images(part), 0))
        return self.counts[part]

    def batches(self, part: Part, epoch: int, start: int = 0, count: int | None = None) -> Iterator[tuple[Tensor, Any]]:
        images, own = self._images(part), ("weights", "logits").index(part)
        indices = self._indices(images, epoch, count)
        size = indices.shape[1]
        rows = distributed.own(size)
        for step, batch in enumerate(images.stream(indices[start:, rows], self.needs.device), start=start):
            numbers = draw(size, seeds.generator(self.config.seed, "augment", epoch, step, own))[rows]
            yield self.augment(batch, numbers), batch.labels

    def _images(self, part: Part) -> Images:
        return self.train if part == "weights" else self.logit_images

    def _indices(self, images: Images, epoch: int, count: int | None) -> NDArray[np.int64]:
        """The batches of an epoch; if more are asked for than there are, passes one after the other."""
        first = self.indices(images, epoch)
        if count is None or count == len(first):
            return first
        passes = [self.indices(images, epoch * 1000 + turn) for turn in range(-(-count // len(first)))]
        return np.concatenate(passes)[:count]

    def calibration(self) -> Iterator[Tensor]:
        generator = seeds.generator(self.config.seed, "recalibrate")
        for _ in range(calibration_batches(len(self.train))):
            index = torch.randint(len(self.train), (CALIBRATION_BATCH,), generator=generator)
            yield self.augment(self.train.take(index, self.needs.device), draw(len(index), generator))

    def begin_epoch(self, epoch: int, make: Callable[[], Network]) -> None:
        """The statistics of the bound by a pass over the training images, where that is how they are made."""
        config, objective = self.config, self.objective
        assert isinstance(objective, Objective)
        if config.loss.refresh != "epoch" or objective.eta((epoch + 1) / config.optim.epochs) == 0:
            return
        images = self.train.shard(distributed.rank(), distributed.world())
        clustering = seeds.generator(config.seed, "cluster", epoch)
        labels = images.labels.to(self.needs.device)
        embedding_ND = embed(make(), images)
        wider = self.needs.channels - embedding_ND.shape[1]  # of a supernet whose last width is open
        objective.statistics.refresh(F.pad(embedding_ND, (0, wider)), labels, clustering)

    @abstractmethod
    def judge(self, network: Network, images: Images) -> tuple[dict[str, float], Tensor]:
        """How good a network is on some images, and their embeddings (N, D), in one pass over them."""

    def evaluate(self, network: Network) -> dict[str, float]:
        assert self.held_out is not None
        return self.judge(network, self.held_out)[0]

    def fresh(self, config: JobConfig, needs: Needs) -> ImageTask:
        found = copy.copy(self)  # the images are the same ones
        found.config, found.needs = config, needs
        found.counts, found.probes = {}, {}
        found.objective = found._objective()
        return found

    def look(self, network: Network, train: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = {}
        information = {"train": self.probe("train", self.train, embed(network, self.train))} if train else {}
        if self.held_out is not None:
            found["held_out"], embedding_ND = self.judge(network, self.held_out)
            if train or len(self.held_out) * self.held_out.classes <= MOST_PROBED:
                information["held_out"] = self.probe("held_out", self.held_out, embedding_ND)
        return found | ({"information": information} if information else {})

    def selections(self, network: Network) -> dict[str, dict[str, float]]:
        """With held-out images, or with training images where none are held out (`dnas.eval.selection`)."""
        return selection_report(network, self.train if self.held_out is None else self.held_out)

    def probe(self, name: str, images: Images, embedding_ND: Tensor) -> dict[str, float]:
        """The information bottleneck of embeddings (`dnas.eval.information`).

        Args:
            name: of the set of images; what depends on them alone is computed once.
        """
        assert isinstance(self.objective, Objective)
        if name not in self.probes:
            self.probes[name] = Probe(images, self.objective.statistics.beta)
        return self.probes[name](F.normalize(embedding_ND, dim=1))
