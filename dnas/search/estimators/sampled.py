"""`sampled`: the drawn option runs, straight-through (GDAS, arXiv 1910.04465).

    y = (g_k + 1 - stop(g_k)) op_k(x),   k the largest of g = softmax((a + Gumbel) / tau)

The gradient reaches a logit through the scale of the drawn operation's output alone. It is biased, and where a batch
norm follows that scale has no effect: the gradient of the task is then exactly zero (a test shows both).
"""

from __future__ import annotations

from dnas.search.estimators.estimator import Estimator


class Sampled(Estimator):
    """A step costs one network, whatever the number of options."""

    def use(self, n: int, gradient: bool = False) -> None:
        weights_HK = self.relaxation.hard(self.draws, n)
        if gradient:
            soft_HK = self.relaxation.soft(self.draws, n, gradient)
            weights_HK = weights_HK + (soft_HK - soft_HK.detach())
        self.relaxation.draw.set(self.relaxation.rows(weights_HK), self.relaxation.numbers(self.draws, n))
