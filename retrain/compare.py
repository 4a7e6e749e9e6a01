"""Compare finished runs: tables, differences with intervals, one picture; read from run folders alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.eval.bootstrap import Difference, paired_difference
from dnas.eval.measure import Measure
from dnas.eval.retrieval import PER_QUERY
from dnas.eval.selection import selection_warnings
from dnas.run.config import expect, flat, from_plain
from dnas.run.files import read_column
from dnas.run.folder import RunFolder
from dnas.task import pick_task
from dnas.task.task import Task
from retrain.config import RetrainConfig

IDENTITY = ("data", "test_on", "out", "seed", "genotype", "device")
"""Settings in which the runs of one row may differ: they are seeds of one experiment."""
PROTOCOL = {"distance": "cosine", "flip_average": False, "cameras": "other"}
"""How runs without a word about it were evaluated."""

RESULTS: dict[str, dict[str, Any]] = {
    "summary.json": {
        "model": str, "start": str, "seed": int, "protocol": {}, "test": {},
    },
    "data.json": {"name": str, "sha256": str},
    "cost.json": {"macs": int, "params": int, "latency": {"median_ms": float, "device": str}},
}  # fmt: skip
"""What is read of a run's results."""


@dataclass(frozen=True)
class Run:
    """What is compared of one run."""

    path: Path
    model: str
    start: str
    settings: dict[str, Any]
    fingerprint: str
    data: str
    cost: dict[str, Any]
    summary: dict[str, Any]

    @property
    def task(self) -> type[Task]:
        """What it was trained for."""
        return pick_task(str(self.summary.get("task", "reid")))

    @property
    def measure(self) -> Measure:
        return self.task.measure

    @property
    def score(self) -> float:
        """The number that decides, on the test set."""
        return float(self.summary["test"][self.measure.key])

    @property
    def seed(self) -> int:
        return int(self.summary["seed"])

    @property
    def protocol(self) -> dict[str, Any]:
        found: dict[str, Any] = self.summary.get("protocol", {})
        return {**PROTOCOL, **found} if self.summary.get("task", "reid") == "reid" else found

    @property
    def selection(self) -> dict[str, dict[str, float]]:
        """What its channel selections did at the end; nothing in runs that did not say."""
        found = self.summary.get("selection", {})
        where = f"{self.path / 'summary.json'}: selection"
        expect(found, {}, where)
        expect(found, {site: {"share": float} for site in found}, where)
        return found  # type: ignore[no-any-return]

    def scores(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """What every test item scored, and the group that is resampled as one."""
        return self.task.scores(self.path)

    def first_matches(self) -> NDArray[np.float64]:
        """Rank of the first match of every query; NaN where there is none.

        Raises:
            UserError: a run that ranks nothing.
        """
        if self.task.measure.key != "mAP":
            raise UserError(f"{self.path}: a network for {self.measure.purpose} ranks no gallery: it has no CMC curve")
        return read_column(self.path / PER_QUERY, "first_match")


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone (or in what the user grouped over)."""

    name: str
    start: str
    runs: list[Run]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.start}"

    @property
    def informed(self) -> list[str]:
        """Sets of images whose information bottleneck every run has measured, of training and test set."""
        known = [run.summary.get("information") or {} for run in self.runs]
        return [part for part in ("train", "test") if all("IB" in (found.get(part) or {}) for found in known)]

    def values(self, *keys: str) -> list[float]:
        """One number of every run: by its path in cost and summary."""
        found = []
        for run in self.runs:
            value: Any = {**run.cost, **run.summary}
            for key in keys:
                value = value[key]
            found.append(float(value))
        return found


@dataclass(frozen=True)
class Pair:
    """How far two groups are apart, over the seeds that each has once; no difference without such seeds."""

    first: str
    second: str
    seeds: list[int]
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """Everything that the tables and the picture show."""

    groups: list[Group]
    pairs: list[Pair]
    mixed: bool

    @property
    def protocol(self) -> str:
        """How all of it was measured, in words."""
        found = {str(run.protocol): run.protocol for group in self.groups for run in group.runs}
        return " or ".join(said(protocol) for protocol in found.values())

    @property
    def notes(self) -> list[str]:
        """What a reader of the tables has to know: runs whose attention selects all of the channels, or none."""
        return [
            f"{group.title}: {run.path.name}: {warning}"
            for group in self.groups
            for run in group.runs
            for warning in selection_warnings(run.selection)
        ]

    @property
    def measure(self) -> Measure:
        """Of the first run: others are compared only where they have the same one."""
        return self.groups[0].runs[0].measure


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
    summary = folder.json("summary.json")
    if isinstance(summary, dict) and "test" not in summary:
        raise UserError(f"{folder.path}: was run with test: false, so it has no result on query and gallery")
    data, cost = folder.json("data.json"), folder.json("cost.json")
    for name, content in (("summary.json", summary), ("data.json", data), ("cost.json", cost)):
        expect(content, RESULTS[name], str(folder.path / name))
    config = from_plain(
        RetrainConfig, folder.config(), str(folder.config_file)
    )  # with what is new since, as it was then
    settings = flat(asdict(config))
    run = Run(folder.path, summary["model"], summary["start"], settings, data["sha256"], data["name"], cost, summary)
    where = f"{folder.path}/summary.json"
    known = summary.get("information", {})
    expect(known, {}, f"{where}: information")
    expect(known, {part: {"IB": float} for part in known}, f"{where}: information")
    expect(summary["test"], dict.fromkeys(run.measure.shown, float), f"{where}: test")
    return run


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs on other data, or measured in another way, than the first.

    Raises:
        UserError: naming the run and what differs.
    """
    first = runs[0]
    check_one_task(runs)
    for run in runs:
        if run.fingerprint != first.fingerprint:
            raise UserError(
                f"{run.path}: trained on other data than {first.path}, not comparable (fingerprints"
                f" {run.fingerprint[:12]} and {first.fingerprint[:12]}); --mixed compares them all the same"
            )
        if run.protocol != first.protocol:
            raise UserError(
                f"{run.path}: measured as {said(run.protocol)}, {first.path} as {said(first.protocol)};"
                " --mixed compares them all the same"
            )


def check_one_task(runs: Sequence[Run]) -> None:
    """Refuse runs that were trained for another task than the first.

    Raises:
        UserError: naming the run.
    """
    for run in runs:
        if run.task is not runs[0].task:
            raise UserError(
                f"{run.path}: a network for {run.measure.purpose}, {runs[0].path} is one for"
                f" {runs[0].measure.purpose}: their numbers have nothing in common"
            )


def said(protocol: dict[str, Any]) -> str:
    """A protocol in words: "cosine distance, across cameras"."""
    if "distance" not in protocol:
        return ", ".join(f"{key} {value}" for key, value in protocol.items()) or "the test set as it is"
    mirrored = ", mean with the mirror image" if protocol["flip_average"] else ""
    cameras = "cameras ignored" if protocol["cameras"] == "ignore" else "across cameras"
    return f"{protocol['distance']} distance{mirrored}, {cameras}"


def grouped(runs: Sequence[Run], by: str | None = None) -> list[Group]:
    """Runs of one model, start and settings together, the best first, under names that say in what groups differ.

    Args:
        by: a setting (dotted) to group by instead, whatever else differs; `backbone` is the searched space or backbone.

    Raises:
        UserError: no run has such a setting.
    """
    fingerprints = {run.fingerprint for run in runs}
    if len(fingerprints) > 1:  # compared all the same, but never in one row
        found = []
        for one in sorted(fingerprints):
            own = [run for run in runs if run.fingerprint == one]
            suffix = f", on {own[0].data} ({one[:8]})"
            found += [Group(group.name + suffix, group.start, group.runs) for group in grouped(own, by)]
        return found
    groups: dict[tuple[str, str], list[Run]] = {}
    if by is not None:
        if not any(by in run.settings for run in runs):
            raise UserError(f"group: found '{by}', allowed: {', '.join(sorted(runs[0].settings))}")
        for run in runs:
            value = run.settings.get(by)
            name = (str(value) if value else run.model) if by == "backbone" else f"{by} {value}"
            groups.setdefault((name, run.start), []).append(run)
    else:
        by_model: dict[tuple[str, str], list[Run]] = {}
        for run in runs:
            by_model.setdefault((run.model, run.start), []).append(run)
        for (model, start), members in by_model.items():
            # what a search held out is held out where its weights are inherited: it goes with the genotype
            identity = {*IDENTITY, *(["holdout_seed"] if all(run.settings.get("inherit") for run in members) else [])}
            keys = sorted({key for run in members for key in run.settings} - identity)
            varied = [key for key in keys if len({str(run.settings.get(key)) for run in members}) > 1]
            shown = ["loss.eta", *(key for key in varied if key != "loss.eta")]
            for run in members:
                name = ", ".join([model, *(f"{key.removeprefix('loss.')} {run.settings.get(key)}" for key in shown)])
                groups.setdefault((name, start), []).append(run)
    found = [Group(name, start, sorted(members, key=lambda run: run.seed)) for (name, start), members in groups.items()]
    return sorted(found, key=lambda group: -mean(run.score for run in group.runs))


def pairs_of(groups: Sequence[Group]) -> list[Pair]:
    """Every two groups, the better one first."""
    found = []
    for a, b in combinations(groups, 2):
        first, second = ({run.seed: run for run in group.runs} for group in (a, b))
        seeds = sorted(set(first) & set(second)) if (len(first), len(second)) == (len(a.runs), len(b.runs)) else []
        difference = None
        if seeds:
            sides = [[side[seed].scores() for seed in seeds] for side in (first, second)]
            ap_SQ, other_SQ = (np.stack([ap for ap, _ in side]) for side in sides)
            if ap_SQ.shape == other_SQ.shape:
                difference = paired_difference(ap_SQ, other_SQ, sides[0][0][1])
        found.append(Pair(a.title, b.title, seeds, difference))
    return found


def compare(
    paths: Sequence[str | Path], by: str | None = None, mixed: bool = False, figure: Path | None = None
) -> Comparison:
    """Read finished runs and compare them; draws accuracy over cost into `figure`.

    Args:
        by: see `grouped`.
        mixed: compare runs on different data or measured in different ways too; their pairs have no intervals.

    Raises:
        UserError: a run that cannot be read, or runs that cannot be compared.
    """
    runs = [read_run(path) for path in paths]
    for run in runs:
        if sum(other.path.resolve() == run.path.resolve() for other in runs) > 1:
            raise UserError(f"{run.path}: given twice")
    if mixed:
        check_one_task(runs)
    else:
        check_comparable(runs)
    groups = grouped(runs, by)
    same = len({(run.fingerprint, str(run.protocol)) for run in runs}) == 1
    comparison = Comparison(groups, pairs_of(groups) if same else [], mixed)
    if figure is not None:
        from dnas.draw.scatter import Point, draw_scatter  # slow to import

        points = [Point(group.title, group.values("macs"), [run.score for run in group.runs]) for group in groups]
        draw_scatter(points, figure, runs[0].measure)
    return comparison
