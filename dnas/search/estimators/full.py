"""`full`: every option of a choice runs, weighted by a Gumbel-softmax (FBNet, arXiv 1812.03443).

g = softmax((a + Gumbel) / tau),   y = sum_k g_k op_k(x)
"""

from __future__ import annotations

from dnas.search.estimators.estimator import Estimator


class Full(Estimator):
    """The gradient of the relaxed loss: exact for it, and as dear as all options together."""

    one_hot = False

    def use(self, n: int, gradient: bool = False) -> None:
        self.relaxation.draw.set(self.relaxation.rows(self.relaxation.soft(self.draws, n, gradient)), None)
