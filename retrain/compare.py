"""Compare finished runs: one table, one picture, read from run folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from dnas.draw.scatter import Point, draw_scatter
from dnas.errors import UserError
from dnas.run.folder import RunFolder


@dataclass(frozen=True)
class Run:
    """What the table needs of one run."""

    path: Path
    group: str
    start: str
    fingerprint: str
    cost: dict[str, Any]
    summary: dict[str, Any]

    @property
    def mean_ap(self) -> float:
        return float(self.summary["test"]["mAP"])


def read_run(path: str | Path) -> Run:
    """Read a finished retraining.

    Raises:
        UserError: not a run, not a retraining, or not finished.
    """
    folder = RunFolder.open(path)
    if folder.verb() != "retrain":
        raise UserError(f"{folder.path}: compare reads retraining runs, this is a {folder.verb()}")
    if not (folder.path / "summary.json").is_file():
        raise UserError(
            f"{folder.path}: not finished (no summary.json); continue it with dnas retrain --resume {folder.path}"
        )
    if "test" not in folder.json("summary.json"):
        raise UserError(f"{folder.path}: was run with test: false, so it has no result on query and gallery")
    config, summary = folder.config(), folder.json("summary.json")
    group = f"{summary['model']}, eta {config['loss']['eta']:g}"
    return Run(
        folder.path, group, summary["start"], folder.json("data.json")["sha256"], folder.json("cost.json"), summary
    )


def grouped(paths: Sequence[str | Path]) -> dict[tuple[str, str], list[Run]]:
    """Runs of one model and start (scratch or weights) together.

    Raises:
        UserError: runs on different data cannot be compared.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    first: Run | None = None
    for path in paths:
        run = read_run(path)
        first = first or run
        if run.fingerprint != first.fingerprint:
            raise UserError(
                f"{run.path}: trained on other data than {first.path}, not comparable"
                f" (fingerprints {run.fingerprint[:12]} and {first.fingerprint[:12]})"
            )
        groups.setdefault((run.group, run.start), []).append(run)
    return groups


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and the standard deviation over runs where there are several."""
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.{digits}f}"


COLUMNS = (
    "model",
    "start",
    "runs",
    "params (k)",
    "MMACs",
    "latency (ms)",
    "mAP (%)",
    "Rank-1 (%)",
    "IB train",
    "IB test",
)


def rows(groups: dict[tuple[str, str], list[Run]]) -> list[tuple[str, ...]]:
    """The cells of the table, best mAP first."""
    found: list[tuple[str, ...]] = []
    for (name, start), runs in sorted(groups.items(), key=lambda item: -mean(run.mean_ap for run in item[1])):
        information = [run.summary["information"] for run in runs]
        found.append((
            name, start, str(len(runs)),
            spread([run.cost["params"] / 1e3 for run in runs], 0),
            spread([run.cost["macs"] / 1e6 for run in runs]),
            spread([run.cost["latency"]["median_ms"] for run in runs], 2),
            spread([100 * run.mean_ap for run in runs]),
            spread([100 * run.summary["test"]["rank1"] for run in runs]),
            spread([i["train"]["IB"] for i in information], 3),
            spread([i["test"]["IB"] for i in information], 3),
        ))  # fmt: skip
    return found


def compare(paths: Sequence[str | Path], figure: Path | None = None) -> Table:
    """The comparison table of finished runs; draws accuracy over cost into `figure`."""
    groups = grouped(paths)
    table = Table(title="mean ± standard deviation over runs; IB in units of log(identities)")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("model", "start") else "right", no_wrap=column == "model")
    for row in rows(groups):
        table.add_row(*row)
    if figure is not None:
        points = [
            Point(f"{name}, {start}", [r.cost["macs"] for r in runs], [r.mean_ap for r in runs])
            for (name, start), runs in groups.items()
        ]
        draw_scatter(points, figure)
    return table
