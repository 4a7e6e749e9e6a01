"""The steps of a search: of weights, of logits, or of both; on one process or on a share of the global batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnas.data.augment import Augmenter, draw
from dnas.data.images import Images
from dnas.loss.objective import Objective
from dnas.nn.reid_net import ReIDNet
from dnas.run import distributed, seeds
from dnas.run.finite import Watch
from dnas.run.parameters import set_rate
from dnas.run.schedules import make_optimiser
from dnas.search.config import SearchConfig
from dnas.search.estimators.estimator import Estimator
from dnas.search.relaxation import Relaxation


class Steps:
    """Optimisers of weights and logits, and one method for each kind of step.

    Every loss is that of the global batch. What does not come through the images (cost, entropy, the score function's
    surrogate) is the same on every rank, and so counts as a share of it: gradients are added up over the ranks.

    Args:
        train: images for the weights.
        logit_images: images for the logits; the same in a `joint` search.
    """

    def __init__(
        self,
        config: SearchConfig,
        net: ReIDNet,
        relaxation: Relaxation,
        objective: Objective,
        estimator: Estimator,
        train: Images,
        logit_images: Images,
    ) -> None:
        self.config, self.net, self.relaxation, self.objective = config, net, relaxation, objective
        self.estimator = estimator
        self.train, self.logit_images = train, logit_images
        self.weight_optimiser = make_optimiser(net, config.optim)
        self.logit_optimiser = torch.optim.Adam(relaxation.parameters(), config.arch.lr, betas=(0.5, 0.999))
        self.augment, self.watch = Augmenter(config.input), Watch(config.optim.on_nonfinite)

    def weights(self, indices: NDArray[np.int64], epoch: int, step: int, at: float, joint: bool) -> dict[str, Tensor]:
        """One step of the weights (`joint`: and of the logits) under the current draw. Returns the loss terms.

        Args:
            indices: the global batch.
            at: epochs done so far, fractions included.

        Returns:
            No terms if the step was skipped because something in it was not finite.
        """
        self.watch.begin(self.net, self.objective)
        set_rate(self.weight_optimiser, self.config.optim.lr_at(at))
        terms = self._terms(self.train, indices, (epoch, step, 0), at)
        shared = self.estimator.terms(at / self.config.optim.epochs) if joint else {}
        loss = sum(terms.values(), torch.zeros((), device=self._device))
        self.weight_optimiser.zero_grad(set_to_none=True)
        self.logit_optimiser.zero_grad(set_to_none=True)
        if not self.watch.good(f"epoch {at:.3f}", {**terms, **shared}):
            return {}
        sum(shared.values(), loss * distributed.world()).div(distributed.world()).backward()
        changed = [*self.net.parameters(), *(self.relaxation.parameters() if joint else ())]
        distributed.sum_gradients(changed)
        norm = torch.nn.utils.get_total_norm([p.grad for p in changed if p.grad is not None])
        if not self.watch.good(f"epoch {at:.3f}", {"gradient": norm}):
            return {}
        self.weight_optimiser.step()
        if joint:
            self.logit_optimiser.step()
        self.watch.end()
        return terms

    def logits(self, indices: NDArray[np.int64], epoch: int, step: int, at: float) -> dict[str, Tensor]:
        """One step of the logits alone, by the estimator; the weights get no gradient."""
        self.watch.begin(self.net)
        inputs, labels = self._batch(self.logit_images, indices, (epoch, step, 1))
        progress = at / self.config.optim.epochs

        def loss() -> Tensor:
            terms = self.objective(self.net(inputs), labels, progress, follow=False)
            return sum(terms.values(), torch.zeros((), device=self._device))

        lesson = self.estimator.learn(loss, progress)
        share = lesson.task + lesson.shared / distributed.world()
        return self._step_logits(share, at, lesson.watched, lesson.value)

    def _step_logits(self, share: Tensor, at: float, watched: Mapping[str, Tensor], loss: Tensor) -> dict[str, Tensor]:
        """Backward of this rank's share of the loss to the logits, and a step if everything is finite."""
        if not self.watch.good(f"epoch {at:.3f}", {**watched, "logit_loss": loss}):
            return {}
        self.logit_optimiser.zero_grad(set_to_none=True)
        share.backward(inputs=[self.relaxation.logits_HK])
        distributed.sum_gradients(self.relaxation.parameters())
        gradient = self.relaxation.logits_HK.grad
        assert gradient is not None
        if not self.watch.good(f"epoch {at:.3f}", {"gradient of the logits": gradient.norm()}):
            return {}
        self.logit_optimiser.step()
        return {"logit_loss": loss.detach()}

    @property
    def _device(self) -> torch.device:
        return self.relaxation.logits_HK.device

    def _terms(
        self, images: Images, indices: NDArray[np.int64], seed: tuple[int, ...], at: float, follow: bool = True
    ) -> dict[str, Tensor]:
        inputs, labels = self._batch(images, indices, seed)
        terms: dict[str, Tensor] = self.objective(self.net(inputs), labels, at / self.config.optim.epochs, follow)
        return terms

    def _batch(self, images: Images, indices: NDArray[np.int64], seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Augmented images and labels on the device: this rank's rows of the global batch."""
        rows = distributed.own(len(indices))
        batch = images.take(torch.from_numpy(indices[rows]), self._device)
        numbers = draw(len(indices), seeds.generator(self.config.seed, "augment", *seed))[rows]
        return self.augment(batch, numbers), batch.labels
