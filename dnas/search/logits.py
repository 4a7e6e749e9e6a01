"""A step of the logits alone: the estimator's lesson, and nothing for the weights.

In a joint search its batch has the images that the weights were just trained on, augmented anew; in a split one, it
has others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dnas.run import distributed
from dnas.run.step import Stepper
from dnas.search.estimators.estimator import Estimator
from dnas.search.relaxation import Relaxation


class LogitStep:
    """The optimiser of the logits.

    Args:
        stepper: of the weights: its network, its precision, its policy for what is not finite.
    """

    def __init__(self, relaxation: Relaxation, estimator: Estimator, stepper: Stepper, lr: float) -> None:
        self.relaxation, self.estimator, self.stepper = relaxation, estimator, stepper
        self.watch = stepper.watch.beside()
        self.optimiser = torch.optim.Adam(relaxation.parameters(), lr, betas=(0.5, 0.999))

    def __call__(self, inputs: Tensor, target: Any, at: float) -> Mapping[str, Tensor]:
        """One step under the current draws of the estimator.

        Args:
            at: epochs done so far, fractions included.

        Returns:
            The loss of the logits; nothing if it was not finite and the step was skipped.
        """
        stepper, watch = self.stepper, self.watch
        watch.begin(stepper.net)
        progress = at / stepper.optim.epochs

        def loss() -> Tensor:
            terms = stepper.objective(stepper.forward(inputs), target, progress, follow=False)
            return sum(terms.values(), torch.zeros((), device=stepper.device))

        lesson = self.estimator.learn(loss, progress)
        if not watch.good(f"epoch {at:.3f}", {**lesson.watched, "logit_loss": lesson.value}):
            return {}
        logits_HK = self.relaxation.logits_HK
        share = lesson.task + lesson.shared / distributed.world()
        share = share + 0 * logits_HK.sum()  # no choice may have had another option to learn from
        self.optimiser.zero_grad(set_to_none=True)
        stepper.scaler.scale(share).backward(inputs=[logits_HK])
        distributed.sum_gradients([logits_HK])
        assert logits_HK.grad is not None
        if not stepper.scaler.is_enabled() and not watch.good(
            f"epoch {at:.3f}", {"gradient of the logits": logits_HK.grad.norm()}
        ):
            return {}
        stepper.scaler.step(self.optimiser)
        stepper.scaler.update()
        watch.end()
        return {"logit_loss": lesson.value.detach()}
