"""Image classification: plain batches, cross-entropy, top-1 on images that were held out, the test set at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dnas.data.classes import hold_out_images, load_classes
from dnas.data.images import Images
from dnas.data.shuffled import shuffled
from dnas.data.splits import split_images
from dnas.errors import UserError
from dnas.eval.classify import Answers, answers
from dnas.eval.measure import CLASSIFICATION
from dnas.loss.objective import LossConfig
from dnas.nn.classify_net import ClassifyNet
from dnas.nn.network import Network
from dnas.run.files import read_column, replace_file
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec
from dnas.task.config import JobConfig
from dnas.task.images import ImageTask, Parts
from dnas.task.task import LOGIT_SHARE, Each, Needs

PER_IMAGE = "per_image.npz"
"""What the network said of every test image: predicted, label, loss."""


class ClassifyTask(ImageTask):
    """Images never seen decide. The loss: label-smoothed cross-entropy, and the bound where `loss.eta` asks for it."""

    measure = CLASSIFICATION

    def __init__(self, config: JobConfig, needs: Needs) -> None:
        check(config, needs)
        super().__init__(config, needs)

    @classmethod
    def network(cls, spec: Spec, x: Shape, classes: int, builder: Builder | None = None) -> Network:
        return ClassifyNet(spec, x, classes, builder)

    def parts(self) -> Parts:
        config = self.config
        data = load_classes(config.data)
        self.data = data
        rest, held = hold_out_images(data.train, config.holdout, config.held_by)
        weights, logits = split_images(rest, LOGIT_SHARE, config.seed) if self.needs.logits else (rest, rest)
        return Parts(weights, logits, held, data.fingerprint)

    def loss_config(self) -> LossConfig:
        return replace(self.config.loss, triplet="none")

    def indices(self, images: Images, epoch: int) -> NDArray[np.int64]:
        return shuffled(len(images), self.config.optim.batch, self.config.seed, epoch)

    def judge(self, network: Network, images: Images) -> tuple[dict[str, float], Tensor]:
        found = self._answers(network, images)
        return found.metrics(), found.embedding_ND

    def each(self, network: Network) -> Each:
        assert self.held_out is not None
        right_N = self._answers(network, self.held_out).right_N
        return Each(right_N.astype(np.float64), np.arange(len(right_N)))

    def _answers(self, network: Network, images: Images) -> Answers:
        return answers(network, images, images.pids - 1)  # not images.labels: a small set may lack a class

    def tested(self) -> Images:
        return self.decode(self.data.test)

    def test(self, network: Network, folder: Path | None = None) -> dict[str, Any]:
        images = self.tested()
        found = self._answers(network, images)
        columns = {"predicted": found.predicted_N, "label": found.label_N, "loss": found.loss_N}
        if folder is not None:
            replace_file(folder / PER_IMAGE, lambda stream: np.savez_compressed(stream, **columns))  # type: ignore[arg-type]
        information = {"test": self.probe("test", images, found.embedding_ND)}
        classes = dict(zip(self.data.classes, found.by_class(self.classes), strict=True))
        return {"test": found.metrics(), "by_class": classes, "information": information}

    @staticmethod
    def scores(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Right (1) or wrong (0) for every image; every image is on its own."""
        predicted, label = (read_column(folder / PER_IMAGE, name) for name in ("predicted", "label"))
        return (predicted == label).astype(np.float64), np.arange(len(label))

    def said(self) -> str:
        held = f" and {len(self.held_out)} held-out" if self.held_out is not None else ""
        return f"{len(self.train):,} training{held} images of {self.classes} classes"


def check(config: JobConfig, needs: Needs) -> None:
    """Refuse what has no meaning here.

    Raises:
        UserError: naming the setting.
    """
    loss = config.loss
    for name, found, allowed in (
        ("loss.triplet", loss.triplet, (None, "none")),
        ("loss.centre", loss.centre, (0,)),
        ("loss.circle", loss.circle, (0,)),
        ("test_on", needs.test_on, (None,)),
        ("distance", getattr(config, "distance", "cosine"), ("cosine",)),  # of a retraining
        ("flip_average", getattr(config, "flip_average", False), (False,)),
        ("input.on_bad_image", config.input.on_bad_image, ("stop",)),
    ):
        if found not in allowed:
            raise UserError(f"{name}: found {found}, allowed with task classify: {allowed[-1]}")
    if "," in config.data and not Path(config.data).exists():
        raise UserError(f"data: found '{config.data}', allowed with task classify: one data set")
