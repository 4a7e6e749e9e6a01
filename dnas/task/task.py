"""What a search or a retraining must know of the job: the seam between the engine and what networks are for.

The engine (`dnas.search`, `retrain`, the loop and the step in `dnas.run`) knows this class alone. It asks for networks
with a head, batches, a loss, and one number that decides on what was held out.

Shapes: B batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnas.eval.measure import Measure
from dnas.nn.network import Network
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec
from dnas.task.config import JobConfig

Part = Literal["weights", "logits"]
"""What a batch trains."""
LOGIT_SHARE = 0.2
"""Of every class, the images that are kept for the logits of a search with `arch.data: split`."""


@dataclass(frozen=True)
class Needs:
    """What a job asks of its task beside the configuration.

    Args:
        height, width: pixels that the network takes.
        channels: dimension of the network's embedding.
        device: where batches are needed.
        logits: whether some training images are kept apart for the logits of a search.
        tested: whether `test` will be asked for.
        trained: whether anything else will be.
        test_on: another data set to test on.
        protocol: how `test` and `evaluate` measure, by the names that the task has for it.
        stages: channels that the network's stages put out, for a loss on them.
    """

    height: int
    width: int
    channels: int
    device: torch.device
    logits: bool = False
    tested: bool = True
    trained: bool = True
    test_on: str | None = None
    protocol: Mapping[str, Any] | None = None
    stages: tuple[int, ...] = ()


@dataclass(frozen=True)
class Each:
    """What every held-out item scored.

    Args:
        score_N: shares (0 to 1), NaN for items that do not count; their mean is the number that decides.
        group_N: items of one group are not independent (identities); each its own otherwise.
    """

    score_N: NDArray[np.float64]
    group_N: NDArray[np.int64]


class Task(ABC):
    """Data, head, loss and verdict of a job. Base of the tasks; images: `dnas.task.images.ImageTask`.

    Raises:
        UserError: data that this task cannot be done on.
    """

    measure: ClassVar[Measure]
    """The numbers of `evaluate` and `test`, and which of them decides."""

    config: JobConfig
    needs: Needs
    fingerprint: dict[str, object]
    """Of the data: going on and comparing depend on it."""
    classes: int
    """Outputs of the head."""
    objective: nn.Module
    """(output, target, progress, follow) -> loss terms by name, each a scalar; what it keeps is in the checkpoint."""
    held: bool
    """Whether anything is held out."""

    @property
    def holdout(self) -> dict[str, Any]:
        """What says which part is held out: it goes with weights that were trained on the rest."""
        return {"share": self.config.holdout, "seed": self.config.held_by}

    @abstractmethod
    def __init__(self, config: JobConfig, needs: Needs) -> None: ...

    @classmethod
    @abstractmethod
    def network(cls, spec: Spec, x: Shape, classes: int, builder: Builder | None = None) -> Network:
        """The network of a description, with the head of this task."""

    @abstractmethod
    def count(self, part: Part) -> int:
        """Batches in an epoch."""

    @abstractmethod
    def batches(self, part: Part, epoch: int, start: int = 0, count: int | None = None) -> Iterator[tuple[Tensor, Any]]:
        """This rank's rows of the global batches of an epoch: inputs and target on the device, one after the other.

        A function of (seed, part, epoch, step) alone. What is given holds until the next one is asked for.

        Args:
            start: the first step that is wanted.
            count: how many steps the epoch has; what there is repeats; none: `count(part)`.
        """

    @abstractmethod
    def calibration(self) -> Iterator[Tensor]:
        """Training inputs from which a network takes its batch norm statistics; the same for every network."""

    @abstractmethod
    def evaluate(self, network: Network) -> dict[str, float]:
        """How good a network is on what is held out, `measure.key` among it."""

    @abstractmethod
    def each(self, network: Network) -> Each:
        """How good a network is on every item that is held out, for paired intervals."""

    @abstractmethod
    def fresh(self, config: JobConfig, needs: Needs) -> Task:
        """The same data for another training: nothing learnt yet, and other settings of how weights are trained.

        Args:
            needs: those of this task, of a network with other channels.
        """

    @abstractmethod
    def test(self, network: Network, folder: Path | None = None) -> dict[str, Any]:
        """How good a network is on the test set: entries of summary.json (`test`, ...). Looked at once, at the end.

        Args:
            folder: where what every item scored is written, for `scores`.
        """

    @staticmethod
    @abstractmethod
    def scores(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """What every item of the test set scored, for paired intervals; and the group that is resampled as one.

        Their mean is the number that decides. NaN: an item that does not count.
        """

    def protocol(self) -> dict[str, Any]:
        """How `evaluate` and `test` measure: runs of other protocols are not compared."""
        return {}

    @abstractmethod
    def said(self) -> str:
        """The training set in words, such as `27 training and 3 held-out identities`."""

    def headline(self, metrics: Mapping[str, float]) -> str:
        """The numbers of `evaluate` or `test` that a person reads first."""
        return ", ".join(f"{self.measure.names[key]} {metrics[key]:.1%}" for key in self.measure.shown)

    @property
    def metric(self) -> str:
        """Key of the number that decides."""
        return self.measure.key

    def begin_epoch(self, epoch: int, make: Callable[[], Network]) -> None:  # noqa: B027 (a hook)
        """Before the first step of an epoch: passes over the data, if the loss needs any.

        Args:
            make: the network to pass them through (in a search: the derived one).
        """

    def selections(self, network: Network) -> dict[str, dict[str, float]]:
        """What the channel selections of a network do in inference with some of its inputs, by site; for the log."""
        return {}

    def look(self, network: Network, train: bool = False) -> dict[str, Any]:
        """What an epoch's log says about a network: `held_out`, and whatever else the task finds worth it.

        Args:
            train: whether the training set is looked at as well.
        """
        return {"held_out": self.evaluate(network)} if self.held else {}

    def thresholds(self, network: Network) -> dict[str, Any] | None:
        """From which similarity on two items are one, measured on what is held out; none where that says nothing."""
        return None
