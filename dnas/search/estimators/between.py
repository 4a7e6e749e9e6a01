"""`between`: what another option would have done to the loss, along the whole way from the one to the other.

`switch` takes the slope of the loss at the drawn option k for the way to the other one, j. Where the loss is far from
linear between the two (a batch norm follows, options differ in kind) that misleads. Here the choice puts out a point of
the way,

    y = (1 - t) op_k(x) + t op_j(x),   t uniform in (0, 1)
    dL/da = (1 - p_k) / 2 <dL/dy, op_j(x) - op_k(x)> (e_j - e_k)

and the mean over t of <dL/dy, op_j(x) - op_k(x)> is the loss with j less the loss with k, for any loss. So it is
unbiased for a choice on its own, a width too (its mask goes the same way); of several, each sees the others on their
way between two of their options.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dnas.search.estimators.switch import Switch
from dnas.search.relaxation import Draw


class Between(Switch):
    """A step of the logits alone runs two options of every choice, the second one forward only."""

    joint = False

    def draw(
        self,
        count: int,
        temperature: float,
        generator: torch.Generator,
        idle_dropout: float = 0.0,
        uniform: float = 0.0,
    ) -> None:
        super().draw(count, temperature, generator, idle_dropout, uniform)
        self.places_NH = torch.rand(count, len(self.relaxation.decisions), generator=generator, dtype=torch.float64)

    def use(self, n: int, gradient: bool = False) -> None:
        super().use(n, gradient)
        if not gradient:
            return
        draw, others = self.relaxation.draw, self.others(n)
        self._places = dict(zip(self.relaxation.decisions, self.places_NH[n].tolist(), strict=True))
        assert draw.index is not None
        rows = {}
        for key, row_K in draw.weights.items():
            k, j = draw.index[key], others[key]
            step_K = torch.zeros_like(row_K)
            if j is not None:
                step_K[j], step_K[k] = 1.0, -1.0
                felt = self._weight(key, k, j)
                step_K = step_K * (self._places[key] + felt - felt.detach())
            rows[key] = row_K.detach() + step_K
        self._others = others
        draw.set(rows, draw.index, self._rule)

    def others(self, n: int) -> dict[str, int | None]:
        """Where the way of every choice leads in draw n; none: it stays at the drawn option."""
        return self.relaxation.runners_up(self.draws, n)

    def _weight(self, key: str, k: int, j: int) -> Tensor:
        a_K = self._logits[key]
        return self._pair(self._p[key].detach(), k, [j], key)[0] / 2 * (a_K[j] - a_K[k])

    def _rule(self, draw: Draw, key: str, run: Callable[[int], Tensor], count: int) -> Tensor:
        assert draw.index is not None
        assert self._others is not None
        k, j = draw.index[key], self._others[key]
        y = run(k)
        if not torch.is_grad_enabled() or j is None:
            return y
        with torch.no_grad(), draw.trial():
            other = run(j)
        found: Tensor = _Way.apply(y, self._weight(key, k, j), other, self._places[key])
        return found


class _Way(torch.autograd.Function):
    """(1 - t) y + t other; the gradient of the weight is <dL/dy, other - y>."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, other: Tensor, place: float) -> Tensor:
        ctx.save_for_backward(y, other)
        ctx.place, ctx.dtype = place, weight.dtype
        return torch.lerp(y, other.to(y.dtype), place)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, other = ctx.saved_tensors
        felt = (gradient * (other - y)).sum(dtype=ctx.dtype)
        return gradient * (1 - ctx.place), felt, None, None
