"""`score`: the score function with a leave-one-out baseline (arXiv 1810.03346 and earlier).

    sum_r (L_r - mean of the others) grad log p(draw r),   draws of one batch

Unbiased, forward passes only; its noise grows with the number of decisions. Those that a drawn network has no part for
do not count in its log p: they had no say in its loss, and would only add noise. The cost is that of each draw, which
an expectation would not be: that is content with a mixture of cheap and dear networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from dnas.search.estimators.estimator import Estimator, Lesson
from dnas.space.spec import Leaf, in_use


class Score(Estimator):
    """Compares `arch.draws` architectures on one batch."""

    joint = False
    tempered = False

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        space = self.budget.space
        return tuple(space.spec.leaves(space.input))

    @property
    def lessons(self) -> int:
        return self.config.draws

    def use(self, n: int, gradient: bool = False) -> None:
        relaxation = self.relaxation
        relaxation.draw.set(relaxation.rows(relaxation.hard(self.draws, n)), relaxation.numbers(self.draws, n))

    @torch.no_grad()
    def _losses(self, loss: Callable[[], Tensor], progress: float) -> tuple[Tensor, Tensor]:
        """The task's loss and the cost term of every draw but the first, (R) each."""
        losses, costs = [], []
        for n in range(1, 1 + self.lessons):
            self.use(n)
            value = loss()
            cost = value.new_full((), float(self.budget.count.at(self.relaxation.drawn())))
            losses.append(value)
            costs.append(self.budget.excess(cost, progress))
        return torch.stack(losses), torch.stack(costs)

    def learn(self, loss: Callable[[], Tensor], progress: float) -> Lesson:
        loss_R, cost_R = self._losses(loss, progress)
        used = [in_use(self.leaves, self.relaxation.numbers(self.draws, n)) for n in range(1, 1 + self.lessons)]
        log_p_R = self.relaxation.log_probability(self.draws, [frozenset(), *used])[1:]
        surrogate = leave_one_out(loss_R + cost_R, log_p_R) + self.settling(progress)
        nothing = torch.zeros_like(surrogate)
        return Lesson(nothing, surrogate, {"cost": cost_R.sum(), "loss": loss_R.sum()}, (loss_R + cost_R).mean())


def leave_one_out(loss_R: Tensor, log_p_R: Tensor) -> Tensor:
    """A surrogate whose gradient is the unbiased estimate of grad E[loss]: each loss against the mean of the others."""
    loss_R = loss_R.detach()
    draws = len(loss_R)
    advantage_R = (loss_R - loss_R.mean()) * draws / (draws - 1)
    return (advantage_R * log_p_R).mean()
