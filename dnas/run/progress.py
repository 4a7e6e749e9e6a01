"""What a person sees while a run goes on: one bar with the losses, or a line per epoch without a terminal."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False, width=None if sys.stdout and sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


HELD_OUT = "held-out "
"""The news of this beginning is the one whose best value is remembered. For people only: the last epoch counts."""


BEST = re.compile(r"\(best ([-\d.e]+)\)")


def _bar(*further: ProgressColumn) -> Progress:
    """On a terminal, by the first of several processes; elsewhere it shows nothing."""
    from dnas.run.distributed import rank  # torch: not before there is something to do

    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, *left, *further, console=console, disable=not console.is_terminal or rank() > 0)


class EpochProgress:
    """A bar over epochs; each epoch says how it went, on the terminal and in a log file."""

    def __init__(self, title: str, epochs: int, done: int, log: Path) -> None:
        self.bar = _bar(TextColumn("{task.fields[news]}"))
        self.task = self.bar.add_task(title, total=epochs, completed=done, news="")
        self.title, self.epochs, self.log = title, epochs, log
        before = log.read_text("utf-8", "replace") if done and log.exists() else ""
        self.best = max((float(found) for found in BEST.findall(before)), default=-math.inf)

    def __enter__(self) -> EpochProgress:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, value, trace)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        """Say how epoch `number` (counted from 0) went, with the best number on what is held out so far."""
        news = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        self.best = max([self.best, *(value for name, value in values.items() if name.startswith(HELD_OUT))])
        news += f"  (best {self.best:.3g})" if math.isfinite(self.best) else ""
        self.bar.update(self.task, advance=1, news=news)
        self._write(f"{self.title} {number + 1}/{self.epochs}  {news}", show=not console.is_terminal)

    def say(self, text: str) -> None:
        """A line that stays, on the terminal and in the log."""
        self._write(f"{self.title}: {text}", show=True)

    def _write(self, line: str, show: bool) -> None:
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        if show:
            console.print(line, markup=False)


class CountProgress:
    """A bar with the time left, over pictures."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.bar = _bar()
        self.task = self.bar.add_task(title, total=total, completed=done)

    def __enter__(self) -> CountProgress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        self.bar.advance(self.task, count)
