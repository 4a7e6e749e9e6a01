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
    model: str
    start: str
    settings: dict[str, Any]
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
    summary = folder.json("summary.json")
    settings = {key: value for key, value in _flat(folder.config()).items() if key not in IDENTITY}
    fingerprint = folder.json("data.json")["sha256"]
    return Run(
        folder.path, summary["model"], summary["start"], settings, fingerprint, folder.json("cost.json"), summary
    )


IDENTITY = ("data", "out", "seed", "genotype", "device")
"""Settings in which the runs of one row may differ: they are seeds of one experiment."""


def grouped(paths: Sequence[str | Path]) -> dict[tuple[str, str], list[Run]]:
    """Runs of one model, start and settings together, under a name that says in what the groups differ.

    Raises:
        UserError: runs on different data cannot be compared.
    """
    runs = [read_run(path) for path in paths]
    for run in runs:
        if run.fingerprint != runs[0].fingerprint:
            raise UserError(
                f"{run.path}: trained on other data than {runs[0].path}, not comparable"
                f" (fingerprints {run.fingerprint[:12]} and {runs[0].fingerprint[:12]})"
            )
    by_model: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_model.setdefault((run.model, run.start), []).append(run)
    groups: dict[tuple[str, str], list[Run]] = {}
    for (model, start), members in by_model.items():
        keys = sorted({key for run in members for key in run.settings})
        varied = [key for key in keys if len({str(run.settings.get(key)) for run in members}) > 1]
        shown = ["loss.eta", *(key for key in varied if key != "loss.eta")]
        for run in members:
            name = ", ".join([model, *(f"{key.removeprefix('loss.')} {run.settings.get(key)}" for key in shown)])
            groups.setdefault((name, start), []).append(run)
    return groups


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


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
