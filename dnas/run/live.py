"""TensorBoard event files, for watching a run while it goes on: a copy of what metrics.jsonl and timing.jsonl hold.

Nothing reads them back; a run whose events cannot be written goes on without. (torch's SummaryWriter puts the name of
the machine into the name of the file.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnas.run.config import flat
from dnas.run.progress import errors

FOLDER = "tb"
PER_CHOICE = ("probabilities.", "moves.", "health.", "options.logits.")
"""Left out: too many curves, and `dnas draw choices` shows them better."""


class Live:
    """Writes scalars by epoch, in one event file for every start of the run.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        self.writer: Any = None
        self.broken = False

    def epoch(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Write one epoch. The first of a file replaces, when it is shown, what was written of later ones before."""
        if self.broken:
            return
        try:
            self._write(int(metrics["epoch"]) + 1, {**flat(metrics), **flat(timing, "time.")})
        except Exception as error:  # of whichever kind: it must not end a run
            self.broken = True
            errors.print(f"dnas: no TensorBoard events are written ({type(error).__name__}: {error})", markup=False)

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time.time()
        if self.writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.writer = RecordWriter((self.folder / f"events.out.tfevents.{time.time_ns()}").open("wb"))
            self.writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            start = SessionLog(status=SessionLog.START)
            self.writer.write(Event(wall_time=now, step=step, session_log=start).SerializeToString())
        shown = [
            Summary.Value(tag=name.replace(".", "/", 1), simple_value=value)
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not name.startswith(PER_CHOICE) and name.split(".")[-1] not in ("epoch", "target")
        ]
        self.writer.write(Event(wall_time=now, step=step, summary=Summary(value=shown)).SerializeToString())
        self.writer.flush()
