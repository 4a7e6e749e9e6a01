"""Latency on the device at hand: of one network, and of every operation of a space."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median, quantiles

import torch
from rich.progress import Progress
from rich.table import Table

from dnas.errors import UserError
from dnas.nn.builder import PlainBuilder
from dnas.run.files import write_json
from dnas.run.folder import environment
from dnas.run.progress import console
from dnas.space.holes import Shape
from dnas.space.latency import FORMAT, LatencyTable, Operation, Point, operations, table_rows
from dnas.space.spec import Space, Spec, decisions, fill

WARMUP = 3


def timer(spec: Spec, x: Shape, batch: int, device: torch.device) -> Callable[[], float]:
    """A function that runs the network of a closed description once and returns nanoseconds, after warm-up."""
    network = spec.build(x, PlainBuilder()).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = torch.zeros(batch, x.channels.size, x.height, x.width, device=device)
    images = images.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run() -> float:
        start = time.perf_counter_ns()
        network(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return float(time.perf_counter_ns() - start)

    for _ in range(WARMUP):
        run()
    return run


def measure(
    operations: dict[str, Operation], batch: int, device: torch.device, rounds: int, done: Callable[[], None]
) -> LatencyTable:
    """Median and quartiles of every operation at its points, over rounds in an order drawn anew each time.

    Args:
        done: called after every round.
    """
    timers: dict[tuple[str, Point], Callable[[], float]] = {}
    for name, operation in operations.items():
        for point in operation.points():
            timers[name, point] = timer(*operation.at(point), batch, device)
    times: dict[tuple[str, Point], list[float]] = {place: [] for place in timers}
    rng = random.Random(0)
    for _ in range(rounds):
        order = list(timers)
        rng.shuffle(order)
        for place in order:
            # once, between others, as in a network: right after itself it would be faster than it ever is there
            times[place].append(timers[place]())
        done()
    rows: dict[str, dict[Point, tuple[float, float, float]]] = {name: {} for name in operations}
    for (name, point), found in times.items():
        low, middle, high = quantiles(found, n=4)
        rows[name][point] = (middle, low, high)
    return LatencyTable(rows)


def measure_space(space: Space, device: torch.device, batch: int, rounds: int, file: Path) -> Iterator[Table | str]:
    """Measure a space and write its table; then hold it against whole random networks. Yields what to show.

    Raises:
        UserError: a number out of range.
    """
    for name, value, least in (("batch", batch, 1), ("rounds", rounds, 2)):
        if value < least:
            raise UserError(f"{name}: found {value}, allowed: {least} or more")
    found = operations(space.spec, space.input)
    points = sum(len(operation.points()) for operation in found.values())
    yield f"latency: {len(found)} operations at {points} widths, batch {batch} on {device.type}"
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("rounds", total=rounds)
        try:
            table = measure(found, batch, device, rounds, lambda: progress.advance(task))
        except (MemoryError, RuntimeError) as error:
            if "memory" not in str(error):
                raise
            raise UserError(f"batch: {batch} images of {space.height} x {space.width} do not fit in memory") from error
    content = {
        "format": FORMAT, "space": space.name, "space_hash": space.hash, "height": space.height, "width": space.width,
        "batch": batch, "rounds": rounds, "device": device.type, **environment(),
        "operations": list(table_rows(table, found)),
    }  # fmt: skip
    write_json(file, content)
    yield _slowest(table, found)
    yield _check(table, space, batch, device, rounds)


def _slowest(table: LatencyTable, found: Mapping[str, Operation], count: int = 10) -> Table:
    shown = Table(title=f"the {count} slowest operations, at their widest")
    for title in ("operation", "input", "median (us)", "quartiles (us)"):
        shown.add_column(title, justify="left" if title in ("operation", "input") else "right")
    widest = {name: max(points.values()) for name, points in table.rows.items()}
    for name in sorted(widest, key=widest.__getitem__, reverse=True)[:count]:
        middle, low, high = (t / 1e3 for t in widest[name])
        operation = found[name]
        shown.add_row(operation.spec.label, str(operation.x), f"{middle:.0f}", f"{low:.0f} - {high:.0f}")
    return shown


def _check(table: LatencyTable, space: Space, batch: int, device: torch.device, rounds: int) -> Table:
    """Sums of the table next to whole networks, drawn at random."""
    shown = Table(title="the table against whole networks, drawn at random")
    for title in ("network", "table (ms)", "measured (ms)", "measured / table"):
        shown.add_column(title, justify="right")
    rng, known = random.Random(0), decisions(space.spec)
    count = table.count(space.spec, space.input)
    for number in range(3):
        index = {key: rng.randrange(len(decision.options)) for key, decision in known.items()}
        spec = fill(space.spec, {key: known[key].options[k] for key, k in index.items()})
        run = timer(spec, space.input, batch, device)
        measured, predicted = median(run() for _ in range(rounds)), count.at(index)
        shown.add_row(str(number + 1), f"{predicted / 1e6:.2f}", f"{measured / 1e6:.2f}", f"{measured / predicted:.2f}")
    return shown
