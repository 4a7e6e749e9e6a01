"""Latency of a description from a table of measured operations (FBNet, arXiv 1812.03443, section 3.2).

`dnas latency` measures every operation of a space at its input shape, at the narrowest, middle and widest of its
open widths; widths between them are interpolated linearly. The table becomes a `Count` in nanoseconds, which the
search uses like MACs. Operations are identified by what they are, not by where they are: equal blocks share a row.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.run.files import read_json
from dnas.space.canonical import plain
from dnas.space.cost import Count
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Leaf, Space, Spec, decisions, fill

FORMAT = "dnas-latency/1"
Point = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """An operation with open widths: `axes` are the keys, `widths` the channel counts that each key can take."""

    spec: Spec
    x: Shape
    axes: tuple[str, ...]
    widths: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(leaf: Leaf) -> Operation:
        widths = {key: decision.options for key, decision in decisions(leaf.spec).items()}
        if leaf.x.channels.key is not None:
            widths = {leaf.x.channels.key: leaf.x.channels.values, **widths}
        return Operation(leaf.spec, leaf.x, tuple(widths), tuple(tuple(map(int, w)) for w in widths.values()))

    @property
    def name(self) -> str:
        """Identifies it: its description and input shape, width keys replaced by their order."""
        order = {key: f"w{n}" for n, key in enumerate(self.axes)}

        def renamed(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: order.get(v, v) if k == "key" else renamed(v) for k, v in value.items()}
            return [renamed(v) for v in value] if isinstance(value, list) else value

        text = {"spec": plain(self.spec), "x": plain(self.x)}
        return json.dumps(renamed(text), separators=(",", ":"))

    def points(self) -> list[Point]:
        """Option numbers to measure: narrowest, middle and widest of every axis."""
        return list(itertools.product(*(_ends(widths) for widths in self.widths)))

    def at(self, point: Point) -> tuple[Spec, Shape]:
        """The closed operation at a point, with its closed input shape."""
        index = dict(zip(self.axes, point, strict=True))
        chosen = {key: decision.options[index[key]] for key, decision in decisions(self.spec).items()}
        c = self.x.channels
        values = c.size if c.key is None else c.values[index[c.key]]
        return fill(self.spec, chosen), self.x.with_channels(Channels.of(values))


def _ends(widths: tuple[int, ...]) -> list[int]:
    order = sorted(range(len(widths)), key=widths.__getitem__)
    return list(dict.fromkeys((order[0], order[len(order) // 2], order[-1])))


def operations(spec: Spec, x: Shape) -> dict[str, Operation]:
    """Every different operation of a description by its name."""
    found = (Operation.of(leaf) for leaf in spec.leaves(x))
    return {operation.name: operation for operation in found}


@dataclass(frozen=True)
class LatencyTable:
    """Measured operations. `rows`: name -> {point: (median, first and third quartile) in nanoseconds}."""

    rows: Mapping[str, Mapping[Point, tuple[float, float, float]]]
    file: str = "latency table"

    def count(self, spec: Spec, x: Shape) -> Count:
        """Nanoseconds of a description, open or closed, as a table over its decisions.

        Raises:
            UserError: an operation is not in the table (another space, or another input size).
        """
        total = Count({})
        for leaf in spec.leaves(x):
            operation = Operation.of(leaf)
            if operation.name not in self.rows:
                raise UserError(
                    f"{self.file}: has no '{leaf.spec.label}' at {leaf.x}: made for another space or input size;"
                    " measure again: dnas latency"
                )
            values = np.rint(self._interpolated(operation)).clip(1).astype(np.int64)
            order = np.argsort(operation.axes)
            keys = tuple(operation.axes[n] for n in order)
            total = total + leaf.where(Count({keys: values.transpose(order)}))
        return total

    def _interpolated(self, operation: Operation) -> NDArray[np.float64]:
        """Nanoseconds at every combination of widths, linear between the measured ones."""
        row, grids = self.rows[operation.name], [_ends(widths) for widths in operation.widths]
        try:
            values = np.array([row[point][0] for point in itertools.product(*grids)])
        except KeyError as error:
            raise UserError(f"{self.file}: '{operation.spec.label}': width options {error} were not measured") from None
        values = values.reshape([len(grid) for grid in grids])
        for axis, (grid, widths) in enumerate(zip(grids, operation.widths, strict=True)):
            values = _along(axis, widths, [widths[k] for k in grid], values)
        return values


def _along(
    axis: int, wanted: Sequence[int], measured: Sequence[int], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Linear interpolation along one axis."""
    lines = np.moveaxis(values, axis, -1)
    flat = np.array([np.interp(wanted, measured, line) for line in lines.reshape(-1, len(measured))])
    return np.moveaxis(flat.reshape(*lines.shape[:-1], len(wanted)), -1, axis)


def table_rows(table: LatencyTable, found: Mapping[str, Operation]) -> Iterator[dict[str, Any]]:
    """The rows of a table file."""
    for name, points in table.rows.items():
        operation = found[name]
        yield {
            "operation": operation.spec.label,
            "input": str(operation.x),
            "name": name,
            "points": [
                {"options": list(point), "median_ns": t[0], "q25_ns": t[1], "q75_ns": t[2]}
                for point, t in points.items()
            ],
        }


def read_latency(file: Path, space: Space) -> LatencyTable:
    """A table that `dnas latency` wrote.

    Raises:
        UserError: not such a file.
    """
    content = read_json(file)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{file}: key 'format': found {found!r}, allowed: '{FORMAT}' (made by: dnas latency)")
    rows: dict[str, dict[Point, tuple[float, float, float]]] = {}
    try:
        for row in content["operations"]:
            rows[row["name"]] = {
                tuple(map(int, p["options"])): (float(p["median_ns"]), float(p["q25_ns"]), float(p["q75_ns"]))
                for p in row["points"]
            }
            if not all(0 < t[0] < 1e15 for t in rows[row["name"]].values()):
                raise ValueError("a time that is not above zero, or without end")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{file}: key 'operations': not as dnas latency writes it ({error})") from error
    if not rows:
        raise UserError(f"{file}: key 'operations': empty, nothing was measured for {space.name}")
    return LatencyTable(rows, str(file))
