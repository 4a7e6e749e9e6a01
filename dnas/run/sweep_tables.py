"""The runs of a sweep as tables, and their means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from rich.table import Table


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """All runs; and means over seeds, where seeds were varied."""
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    metric = next((row["metric"] for row in rows if "metric" in row), "mAP")
    table = Table(title="runs, the best on what is held out first")
    for key in (*keys, f"held-out {metric} (%)", f"{metric} (%)", "MMACs", "state"):
        table.add_column(key, justify="left" if key == "state" else "right")
    for row in rows:
        cells = [f"{row['params'].get(key)}" for key in keys]
        shown = [_cell(row.get("held_out"), 100), _cell(row.get("test"), 100), _cell(row.get("macs"), 1e-6)]
        table.add_row(*cells, *shown, row["state"])
    if "seed" not in keys or len(keys) < 2:
        return [table]
    grouped: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    others = [key for key in keys if key != "seed"]
    for row in rows:
        if row.get("held_out") is not None:
            grouped.setdefault(tuple(str(row["params"].get(key)) for key in others), []).append(row)
    if not grouped:
        return [table]
    over_seeds = Table(title=f"held-out {metric} (%), mean ± standard deviation over seeds")
    for key in (*others, "seeds", f"held-out {metric} (%)"):
        over_seeds.add_column(key, justify="right")
    order = sorted(grouped.items(), key=lambda item: -mean(row["held_out"] for row in item[1]))
    for names, members in order:
        values = [100 * row["held_out"] for row in members]
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        over_seeds.add_row(*names, str(len(values)), f"{mean(values):.1f}{spread}")
    return [table, over_seeds]


def _cell(value: float | None, factor: float) -> str:
    return "-" if value is None else f"{factor * value:.1f}"
