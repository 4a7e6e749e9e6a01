"""A comparison as tables: for the terminal, and as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.markup import escape
from rich.table import Table

from dnas.errors import UserError
from dnas.run.files import write_text
from retrain.compare import Comparison, Group, Pair

GROUPS = "{}; mean ± standard deviation over runs; IB in units of log(classes)"
"""With the protocol."""
ENDINGS = (".md", ".csv", ".json", ".txt")


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and the standard deviation over runs where there are several."""
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.{digits}f}"


def group_cells(group: Group) -> dict[str, str]:
    """The row of a group: column -> cell."""
    measure = group.runs[0].measure
    devices = "/".join(sorted({str(run.cost["latency"]["device"]) for run in group.runs}))
    return {
        "model": group.name,
        "start": group.start,
        "runs": str(len(group.runs)),
        "params (k)": spread([value / 1e3 for value in group.values("params")], 0),
        "MMACs": spread([value / 1e6 for value in group.values("macs")]),
        "latency (ms)": spread(group.values("latency", "median_ms"), 2) + ("" if devices == "cpu" else f" {devices}"),
        **{
            f"{measure.names[key]} (%)": spread([100 * value for value in group.values("test", key)])
            for key in measure.shown
        },
        **{f"IB {part}": spread(group.values("information", part, "IB"), 3) for part in group.informed},
    }


def pairs_title(comparison: Comparison) -> str:
    """What the differences are of."""
    measure = comparison.measure
    return f"difference in {measure.name} (points), 95 % interval: paired bootstrap over {measure.resampled} and seeds"


def pair_cells(pair: Pair) -> dict[str, str]:
    """The row of a pair: column -> cell."""
    found = pair.difference
    return {
        "model": pair.first,
        "against": pair.second,
        "seeds": str(len(pair.seeds)),
        "difference": f"{100 * found.mean:+.1f}" if found else "-",
        "95 % interval": f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        if found
        else "no seeds that each has once",
    }


def tables(comparison: Comparison) -> list[Table]:
    """For the terminal."""
    found = [_table(GROUPS.format(comparison.protocol), [group_cells(group) for group in comparison.groups])]
    found[0].caption = "\n".join(escape(f"note: {note}") for note in comparison.notes) or None
    if comparison.pairs:
        found.append(_table(pairs_title(comparison), [pair_cells(pair) for pair in comparison.pairs]))
    return found


def _table(title: str, rows: Sequence[dict[str, str]]) -> Table:
    table = Table(title=title)
    words = ("model", "start", "against")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in words else "right", no_wrap=column == "model")
    for row in rows:
        table.add_row(*row.values())
    return table


def write_table(comparison: Comparison, file: Path) -> None:
    """Write the tables: .md and .txt both, .csv the groups, .json the numbers behind them.

    Raises:
        UserError: another file ending.
    """
    if file.suffix not in ENDINGS:
        raise UserError(f"{file}: cannot write '{file.suffix}', allowed: {', '.join(ENDINGS)}")
    groups = [group_cells(group) for group in comparison.groups]
    pairs = [pair_cells(pair) for pair in comparison.pairs]
    if file.suffix == ".json":
        text = json.dumps(numbers(comparison), indent=2) + "\n"
    elif file.suffix == ".csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(groups[0]))
        writer.writeheader()
        writer.writerows(groups)
        text = stream.getvalue()
    else:
        parts = [(GROUPS.format(comparison.protocol), groups)] + ([(pairs_title(comparison), pairs)] if pairs else [])
        notes = [f"note: {note}" for note in comparison.notes]
        text = "\n\n".join([*(f"{title}\n\n{_markdown(rows)}" for title, rows in parts), *notes]) + "\n"
    write_text(file, text)


def _markdown(rows: Sequence[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def numbers(comparison: Comparison) -> dict[str, Any]:
    """Everything unrounded: every run of every group, every pair."""
    groups = [
        {
            "name": group.name,
            "start": group.start,
            "runs": [
                {
                    "path": str(run.path),
                    "seed": run.seed,
                    "protocol": run.protocol,
                    "data": run.fingerprint,
                    "cost": run.cost,
                    "test": run.summary["test"],
                    "information": run.summary.get("information", {}),
                }
                for run in group.runs
            ],
        }
        for group in comparison.groups
    ]
    return {"groups": groups, "pairs": [asdict(pair) for pair in comparison.pairs]}
