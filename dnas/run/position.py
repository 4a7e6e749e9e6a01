"""Where a run is, down to the step; and how it stops between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor

from dnas.errors import check_range
from dnas.run import distributed
from dnas.run.averages import Averages
from dnas.run.checkpoints import KEEP


@dataclass(frozen=True)
class CheckpointConfig:
    """When state is written besides the end of every epoch.

    Args:
        every_steps: steps between two checkpoints within an epoch; 0: none.
        keep: how many checkpoints are kept.
    """

    every_steps: int = 0
    keep: int = KEEP

    def __post_init__(self) -> None:
        check_range(self, "checkpoint.", 0, 1e9, "every_steps")
        check_range(self, "checkpoint.", 1, 1e9, "keep")


class Position:
    """Whole epochs done, steps done of the next one, and the running means of those steps."""

    def __init__(self) -> None:
        self.epoch = 0
        self.begin()

    def begin(self) -> None:
        """No step of this epoch is done."""
        self.step = self.skipped = 0
        self.losses, self.watched = Averages(), Averages()

    def count(self, terms: Mapping[str, Tensor], watched: Mapping[str, Tensor] | None = None) -> None:
        """Add the loss terms of a step and what else is watched to the means; without terms it was skipped."""
        if not terms:
            self.skipped += 1
            return
        self.losses.add(terms)
        self.watched.add(watched or {})

    def summary(self) -> dict[str, Any]:
        """Of the epoch so far, for the log."""
        found = {"loss": self.losses.means(), "assignment": self.watched.means()}
        return found | ({"skipped": self.skipped} if self.skipped else {})

    def finish(self) -> None:
        """An epoch more."""
        self.epoch += 1
        self.begin()

    def state_dict(self) -> dict[str, Any]:
        parts = {"losses": self.losses.state_dict(), "watched": self.watched.state_dict()}
        return {"epoch": self.epoch, "step": self.step, "skipped": self.skipped, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.skipped = int(state.get("skipped", 0))
        self.losses.load_state_dict(state["losses"])
        self.watched.load_state_dict(state["watched"])


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop, and it has written where it was."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def ask(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.default_int_handler)  # the second time at once

    def check(self) -> None:
        """End here if asked to, on any rank; everything has been written."""
        if distributed.any_rank(self.signal is not None):
            raise Interrupted(self.signal or signal.SIGTERM)


class Pauses:
    """Between two steps of an epoch: a checkpoint every so often, and the end if a signal asked for it."""

    def __init__(self, config: CheckpointConfig, position: Position, stop: Stop, save: Callable[[], None]) -> None:
        self.config, self.position, self.stop, self.save = config, position, stop, save
        self.owed = False

    def after_step(self, steps: int, ready: bool = True) -> None:
        """Count a step, and pause if it is time.

        Args:
            steps: in the epoch; after the last one the epoch's own checkpoint comes anyway.
            ready: whether the state is all there is (no gradients are waiting for more batches).
        """
        position, every = self.position, self.config.every_steps
        position.step += 1
        count = position.epoch * steps + position.step
        self.owed |= bool(every) and count % every == 0
        # several processes stop where all of them save: elsewhere they would have to ask each other in every step
        asked = self.stop.signal is not None and not distributed.active()
        if position.step < steps and ready and (self.owed or asked):
            self.save()
            self.owed = False
            self.stop.check()

    def between_looks(self) -> None:
        """After the last step of an epoch, while what it led to is looked at for long: the end, as after a step.

        The looks are begun anew when the run goes on. All ranks call this together.
        """
        if distributed.any_rank(self.stop.signal is not None):
            self.save()
            self.stop.check()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """SIGINT and SIGTERM only ask, while this lasts: a run stops after its step, several processes where they save."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
