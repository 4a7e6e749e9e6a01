"""Losses and gradients that are not finite, noticed without waiting for the device in every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from dnas.errors import UserError

BEHIND = 2
"""Steps that the host may be ahead of the device before it looks."""


class Watch:
    """Remembers the values of each step until the device has them, and says which one broke."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, tuple[str, ...], Tensor, torch.cuda.Event | None]] = deque()

    def add(self, where: str, values: Mapping[str, Tensor]) -> None:
        """Scalar tensors of a step.

        Args:
            where: the step, for the message.

        Raises:
            UserError: a value of an earlier step (on a CPU: of this one) is not finite.
        """
        found = torch.stack([value.detach().float() for value in values.values()]).isfinite()
        event = None
        if found.device.type == "cuda":
            found = found.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.waiting.append((where, tuple(values), found, event))
        self.check(0 if event is None else BEHIND)

    def check(self, behind: int = 0) -> None:
        """Look at all steps but the last few, waiting for them if need be. Call it before anything is written."""
        while len(self.waiting) > behind:
            where, names, finite, event = self.waiting.popleft()
            if event is not None:
                event.synchronize()
            if not bool(finite.all()):
                broken = ", ".join(f"'{name}'" for name, good in zip(names, finite.tolist(), strict=True) if not good)
                raise UserError(
                    f"training has diverged: {broken} not finite in {where}; what was written before is whole"
                    " (a smaller optim.lr, or train.clip, may help)"
                )
