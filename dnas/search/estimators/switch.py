"""`switch`: the drawn option runs and is trained, and feels what the loss would have been with another.

With p = softmax(a), the drawn option k (Gumbel-max) and what the others put out, forward only:

    all:  dL/dp_j = <dL/dy, op_j(x) - op_k(x)>                                         every other option j
    one:  dL/da   = (1 - p_k) / 2 <dL/dy, op_j(x) - op_k(x)> (e_j - e_k)               j ~ p without k
          (1 - p_k) becomes p_k p_j (1 - q_k) / (q_k q_j) where draws follow q instead of p

On average over the draws both are the gradient of the expected loss where the loss is linear in y, exactly, and its
first-order estimate elsewhere: the change of the loss if this choice alone switched. It is local to a choice, so its
noise does not grow with their number, and comes from the backward pass that trains the weights. A temperature has no
part in it: p is what draws, not a tempered sample.

Widths: the mask is that of the drawn width forward, with the gradient of sum_k p_k mask_k. That is linear in the
output of the batch norm into which the mask is folded, and first-order through the activation after it.

The cost term is that of the drawn network, with the exact costs of every network that is one switch away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dnas.search.estimators.estimator import Estimator
from dnas.search.relaxation import Draw


class Switch(Estimator):
    """A step costs one network, and the forward passes of the alternatives (`arch.alternatives`: one or all)."""

    tempered = False
    off_policy = True

    def use(self, n: int, gradient: bool = False) -> None:
        relaxation, draws = self.relaxation, self.draws
        hard_HK, numbers = relaxation.hard(draws, n), relaxation.numbers(draws, n)
        if not gradient:
            relaxation.draw.set(relaxation.rows(hard_HK), numbers)
            return
        p_HK = relaxation.probability(draws)
        self._p, self._logits = relaxation.rows(p_HK), relaxation.rows(relaxation.logits_HK)
        self._others = relaxation.runners_up(draws, n) if self.config.alternatives == "one" else None
        self._followed, self._costed = None, numbers
        if draws.followed_NHK is not None:  # the cost is that of what the logits would draw
            self._costed = relaxation.preferred(draws, n)
            self._followed = relaxation.rows(relaxation.followed(draws, n).softmax(1).to(p_HK.device))
        relaxation.draw.set(relaxation.rows(hard_HK + (p_HK - p_HK.detach())), numbers, self._rule)

    def _rule(self, draw: Draw, key: str, run: Callable[[int], Tensor], count: int) -> Tensor:
        assert draw.index is not None
        k, p_K = draw.index[key], self._p[key]
        y = run(k)
        if not torch.is_grad_enabled():  # inside an alternative of another choice, or at a look
            return y
        if self._others is None:
            others = [j for j in range(count) if j != k]
            weights_J = torch.cat([p_K[:k], p_K[k + 1 :]])
        else:
            others = [j for j in (self._others[key],) if j is not None]
            a_K = self._logits[key]
            weights_J = self._pair(p_K.detach(), k, others, key) / 2 * (a_K[others] - a_K[k])
        if not others:  # there was nothing else to draw
            return y
        with torch.no_grad(), draw.trial():
            outputs = [run(j) for j in others]
        felt: Tensor = _Felt.apply(y, weights_J, *outputs)
        return felt

    def _pair(self, p_K: Tensor, k: int, others: list[int], key: str) -> Tensor:
        """p_k p_j over the probability with which k was drawn and then j."""
        if self._followed is None:
            return (1 - p_K[k]).expand(len(others))
        q_K = self._followed[key]
        return p_K[k] * p_K[others] * (1 - q_K[k]) / (q_K[k] * q_K[others])

    def terms(self, progress: float) -> dict[str, Tensor]:
        found = super().terms(progress)
        return found | {"cost": self.budget.switched_excess(self._costed, self._p, progress)}


class _Felt(torch.autograd.Function):
    """y as it is; the gradient of weight j is <dL/dy, other_j - y>, that of y + sum_j w_j (other_j - y) at w = 0."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weights_J: Tensor, *others: Tensor) -> Tensor:
        ctx.save_for_backward(y, *others)
        ctx.dtype = weights_J.dtype
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, *others = ctx.saved_tensors
        felt_J = torch.stack([(gradient * (other - y)).sum(dtype=ctx.dtype) for other in others])
        return gradient, felt_J, *(None for _ in others)
