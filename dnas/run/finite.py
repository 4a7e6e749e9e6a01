"""Losses and gradients that are not finite: noticed at their step, named, and never part of what is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dnas.errors import UserError

OnNonfinite = Literal["stop", "skip"]
BEHIND = 2
"""Steps that the host may be ahead of the device before it looks."""
IN_A_ROW = 20
"""So many skipped steps one after the other are a training that has diverged."""


class Watch:
    """Looks at the values of every step.

    Args:
        policy: `stop` ends the run, and looks at a step when the device has done it, so that nobody waits; `skip` looks
            at once (it waits for the device in every step) and undoes what the step did to the modules' buffers.
    """

    def __init__(self, policy: OnNonfinite = "stop") -> None:
        self.policy = policy
        self.waiting: deque[tuple[str, tuple[str, ...], Tensor, torch.cuda.Event | None]] = deque()
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.in_a_row = 0

    def beside(self) -> Watch:
        """A watch over other steps of the same run: looked at together with these, and counted on its own."""
        found = Watch(self.policy)
        found.waiting = self.waiting
        return found

    def begin(self, *modules: nn.Module) -> None:
        """A step begins; remember the buffers (running means, class statistics) that it will change."""
        if self.policy == "skip":
            self.kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]

    def good(self, where: str, values: Mapping[str, Tensor]) -> bool:
        """Whether the step counts; if not, the caller leaves out the rest of it.

        Args:
            where: the step, for the message.
            values: scalar tensors by name.

        Raises:
            UserError: a value of this or an earlier step is not finite (`skip`: of many steps in a row).
        """
        found = torch.stack([value.detach().float() for value in values.values()]).isfinite()
        if self.policy == "skip":
            return self._good_now(where, tuple(values), found)
        event = None
        if found.device.type == "cuda":
            found = found.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.waiting.append((where, tuple(values), found, event))
        self.check(0 if event is None else BEHIND)
        return True

    @torch.no_grad()
    def _good_now(self, where: str, names: tuple[str, ...], finite: Tensor) -> bool:
        if bool(finite.all()):
            return True
        for buffer, before in self.kept:
            buffer.copy_(before)
        self.in_a_row += 1
        if self.in_a_row > IN_A_ROW:
            raise UserError(f"{_diverged(where, names, finite)}, and so were {IN_A_ROW} steps before it; {_HINT}")
        return False

    def end(self) -> None:
        """The step counted."""
        self.in_a_row = 0

    def check(self, behind: int = 0) -> None:
        """Look at all steps but the last few, waiting for them if need be. Call it before anything is written."""
        while len(self.waiting) > behind:
            where, names, finite, event = self.waiting.popleft()
            if event is not None:
                event.synchronize()
            if not bool(finite.all()):
                raise UserError(f"{_diverged(where, names, finite)}; {_HINT}")


_HINT = (
    "what was written before is whole (a smaller optim.lr, or train.clip, may help; optim.on_nonfinite skip leaves out"
    " single bad steps)"
)


def _diverged(where: str, names: tuple[str, ...], finite: Tensor) -> str:
    broken = ", ".join(f"'{name}'" for name, good in zip(names, finite.tolist(), strict=True) if not good)
    return f"training has diverged: {broken} not finite in {where}"
