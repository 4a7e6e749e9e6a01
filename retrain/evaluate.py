"""How good a trained network is, on query and gallery and as an information bottleneck, and how fast."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any

import numpy as np
import torch
from rich.table import Table

from dnas.data.protocol import Cameras
from dnas.data.splits import Split, check_matches, together
from dnas.errors import UserError, check_range
from dnas.eval.embed import Distance
from dnas.eval.open_set import best_similarities, open_set
from dnas.eval.ranking import Ranking, rank_by
from dnas.eval.rerank import Reranked
from dnas.eval.retrieval import retrieve
from dnas.nn.network import Network
from dnas.run.device import Device
from dnas.task import pick_task
from retrain.calibrate import strictest
from retrain.compare import said
from retrain.load import TrainedRun, load


@dataclass(frozen=True)
class EvalConfig:
    """Evaluate a trained network on query and gallery of a data set.

    Args:
        run: folder of a retraining.
        data: data set to evaluate on, in any layout of docs/data.md; the run's own without.
        cameras: see `dnas retrain`; as the run was measured without.
        distance: cosine of the embeddings, or euclidean; as the run was measured without.
        flip_average: embed every image and its mirror image, and take the mean; as the run was measured without.
        rerank: k-reciprocal re-ranking as well, as rows of its own (cosine only).
        k1: neighbours that must be mutual (re-ranking).
        k2: neighbours that are averaged (re-ranking).
        weight: of the original distance (re-ranking).
        chunk: queries at a time: memory is a few times chunk x gallery x 4 bytes.
        device: auto, cpu, cuda, cuda:N or mps.
        space: the space of the network, if it is a file of your own.
        open_set: also what is found where the person of a query may not be in the gallery, at thresholds.
        json: print the numbers as one line of JSON, last.
        output: file to write the same JSON to.
    """

    run: str
    data: str | None = None
    cameras: Cameras | None = None
    distance: Distance | None = None
    flip_average: bool | None = None
    rerank: bool = False
    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    chunk: int = 256
    device: Device = "auto"
    space: str | None = None
    open_set: bool = False
    json: bool = False
    output: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "", 1, math.inf, "k1", "k2", "chunk")
        check_range(self, "", 0, 1, "weight")


def evaluate_run(config: EvalConfig) -> dict[str, Any]:
    """Metrics over all queries and by the camera of the query: {"protocol", "data", "plain", ("reranked")}.

    Raises:
        UserError: not a retraining, no query or gallery, or no query with a match.
    """
    run = load(config.run, config.device, config.space)
    stored = run.config
    if stored.task != "reid":
        return _tested(run, config)
    distance = config.distance or stored.distance
    flip_average = stored.flip_average if config.flip_average is None else config.flip_average
    if config.rerank and distance != "cosine":
        raise UserError(f"rerank: found with distance {distance}, allowed with: cosine")
    data = run.data(config.data, cameras=config.cameras)
    check_matches(data.query, data.gallery, "query and gallery")
    queries = len(data.query)
    images = run.decode(together(data.query, data.gallery))
    ranking, embedding_ND = retrieve(run.network, images, queries, distance, flip_average, config.chunk)
    result: dict[str, Any] = {
        "run": config.run,
        "protocol": {"distance": distance, "flip_average": flip_average, "cameras": data.protocol.cameras},
        "data": data.fingerprint(),
        "plain": by_camera(ranking, data.query),
    }
    if config.rerank:
        settings = {name: getattr(config, name) for name in ("k1", "k2", "weight")}
        one_set = data.query.files == data.gallery.files
        rows = Reranked(embedding_ND[:queries], embedding_ND[queries:], **settings, one_set=one_set).rows
        ranking = rank_by(rows, data.query.ids, data.gallery.ids, embedding_ND.device, min(config.chunk, 64))
        result["reranked"] = {"settings": settings, **by_camera(ranking, data.query)}
    if config.open_set:
        best = best_similarities(
            embedding_ND[:queries], embedding_ND[queries:], data.query.ids, data.gallery.ids, distance, config.chunk
        )
        as_measured = (distance, flip_average) == (stored.distance, stored.flip_average)
        measured = strictest(run.folder) if as_measured else None
        result["open_set"] = [asdict(row) for row in open_set(*best, measured[0] if measured else None)]
    return result


def _tested(run: TrainedRun, config: EvalConfig) -> dict[str, Any]:
    """What a task other than Re-ID says of its test set: {"protocol", "data", "task", "test", ...}.

    Raises:
        UserError: settings that are for Re-ID alone.
    """
    plain = EvalConfig(config.run)
    for name in ("distance", "flip_average", "rerank", "open_set", "cameras"):
        if getattr(config, name) != getattr(plain, name):
            raise UserError(f"{name}: found {getattr(config, name)}, allowed for a run of task reid alone")
    task = run.task(config.data)
    found = {key: value for key, value in task.test(run.network).items() if key != "information"}
    return {"run": config.run, "task": run.config.task, "protocol": {}, "data": task.fingerprint, **found}


def by_camera(ranking: Ranking, query: Split) -> dict[str, Any]:
    """Metrics over all queries, and over those of each camera that has any with a match, if there are cameras."""
    cameras = {}
    for camera in np.unique(query.camids).tolist() if query.protocol.known else ():
        part = ranking.subset(query.camids == camera)
        if part.valid.any():
            cameras[str(camera)] = {**part.metrics(), "queries": int(part.valid.sum())}
    return {"all": {**ranking.metrics(), "queries": int(ranking.valid.sum())}, "cameras": cameras}


def tables(result: dict[str, Any]) -> list[Table]:
    """The result for people."""
    if "task" in result:
        return _of_task(result)
    protocol = result["protocol"]
    how = said(protocol)
    found = []
    for kind, title in (("plain", how), ("reranked", f"{how}, k-reciprocal re-ranking")):
        if kind not in result:
            continue
        table = Table("queries from", "mAP (%)", "Rank-1", "Rank-5", "Rank-10", "mINP", "queries", title=title)
        rows = {"all": result[kind]["all"], **{f"camera {c}": m for c, m in result[kind]["cameras"].items()}}
        for name, metrics in rows.items():
            values = (metrics[key] for key in ("mAP", "rank1", "rank5", "rank10", "mINP"))
            table.add_row(name, *(f"{100 * value:.1f}" for value in values), f"{metrics['queries']:,}")
        found.append(table)
    if "open_set" in result:
        columns = ("threshold", "similarity", "false alarms", "found", "missed or wrong")
        table = Table(*columns, title="queries whose person may not be in the gallery")
        for row in result["open_set"]:
            name = "measured on other people" if row["measured"] else "from these queries"
            shares = (row["false_alarms"], row["found"], 1 - row["found"])
            table.add_row(name, f"{row['threshold']:.3f}", *(f"{share:.1%}" for share in shares))
        found.append(table)
    return found


def _of_task(result: dict[str, Any]) -> list[Table]:
    """Every number of a task, and those of its classes."""
    measure = pick_task(result["task"]).measure
    table = Table(*(f"{measure.names[key]} (%)" for key in measure.names), title=measure.tested)
    table.add_row(*(f"{100 * result['test'][key]:.1f}" for key in measure.names))
    if "by_class" not in result:
        return [table]
    classes = Table("class", f"{measure.name} (%)", title="by class")
    for name, share in result["by_class"].items():
        classes.add_row(name, "-" if share is None else f"{100 * share:.1f}")
    return [table, classes]


@torch.inference_mode()
def latency(net: Network, size: tuple[int, int], repeats: int = 30) -> dict[str, float | str]:
    """Milliseconds to embed one image: median and quartiles over `repeats`, after three warm-ups."""
    device = next(net.parameters()).device
    net.eval()
    x = torch.zeros(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        net.embed(x).sum().item()  # .item() waits for the device
        times.append((time.perf_counter() - start) * 1e3)
    low, middle, high = quantiles(times[3:], n=4)
    return {"median_ms": middle, "q25_ms": low, "q75_ms": high, "device": device.type}
