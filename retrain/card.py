"""A model card: what a trained network is, how well it does, and where it should not be used.

Markdown with the front matter of the Hugging Face Hub (model-index and all), made from run folders alone; the report
shows the same parts. Cards were proposed by Mitchell et al., "Model Cards for Model Reporting", arXiv 1810.03993.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dnas.draw.page import Code, Item, Text
from dnas.errors import UserError, printable
from dnas.eval.bootstrap import Difference, paired_difference
from dnas.eval.measure import CLASSIFICATION, RETRIEVAL
from dnas.run.config import flat
from dnas.run.folder import RunFolder
from retrain.compare import Run, check_comparable, grouped, read_run, said
from retrain.report_tables import as_dict, pairs_table
from retrain.tables import spread

USE = {
    RETRIEVAL.purpose: "To retrieve pictures of the same individual across cameras, among pictures like those it was"
    " trained on. Person re-identification is surveillance technology: use it where the people in the pictures agreed"
    " to it, and where the law allows it.",
    CLASSIFICATION.purpose: "To say which of the classes it was trained on a picture shows, among pictures like those.",
}
LIMITS = {
    RETRIEVAL.purpose: "The numbers hold for this data set and protocol; on other cameras, places, seasons and people"
    " expect less (measure it: dnas eval RUN --data OTHER). It ranks a gallery and does not know whether the individual"
    " is in it: a first hit is no proof of identity, and no decision about a person should rest on it alone. How"
    " accuracy differs between groups of people was not measured.",
    CLASSIFICATION.purpose: "The numbers hold for this data set; on other pictures expect less (measure it: dnas eval"
    " RUN --data OTHER). It names one of its classes whatever it is shown.",
}


@dataclass(frozen=True)
class Part:
    """A heading, sentences, and rows of names and values."""

    title: str
    lines: Sequence[str] = ()
    rows: Mapping[str, str] | None = None
    code: str = ""


@dataclass(frozen=True)
class Card:
    """A model card.

    Args:
        metadata: front matter of the Hub.
    """

    title: str
    metadata: Mapping[str, Any]
    parts: Sequence[Part]


def model_card(paths: Sequence[str | Path]) -> Card:
    """The card of a finished retraining, or of several that differ in their seed alone; the first one is described.

    Raises:
        UserError: not a finished retraining, or runs of more than one model, data set or protocol.
    """
    runs = [read_run(path) for path in paths]
    check_comparable(runs)
    if len(groups := grouped(runs)) > 1:
        raise UserError(f"card: found {len(groups)} models, allowed: one, with several seeds")
    interval = _interval(runs)
    parts = (_what(runs), _data(runs[0]), _results(runs, interval), _training(runs[0]),
             *_words(runs[0].measure.purpose))  # fmt: skip
    return Card(runs[0].model, _metadata(runs), parts)


def _words(purpose: str) -> list[Part]:
    """Use and limits; a task of the user's own has none until its maker writes them."""
    unsaid = "Not written: say it before you publish this card."
    return [
        Part("Intended use", [USE.get(purpose, unsaid)]),
        Part("Limits", [LIMITS.get(purpose, unsaid)]),
    ]


def card_items(path: Path) -> list[Item]:
    """The card of one run, for a page."""
    try:
        card = model_card([path])
    except UserError as error:  # not tested, say
        return [Text(f"No model card: {error}")]
    said = [Text(f"{part.title}: {line}") for part in card.parts for line in part.lines]
    rows = {f"{part.title}: {key}": value for part in card.parts for key, value in (part.rows or {}).items()}
    command = f"dnas card {shlex.quote(str(path))} -o README.md"
    return [*said, pairs_table("Model card", rows, folded=True), Code(command)]


def markdown(card: Card) -> str:
    """The card as a file for a repository on the Hub (README.md)."""
    text = ["---", yaml.safe_dump(dict(card.metadata), sort_keys=False, allow_unicode=True).rstrip(), "---", ""]
    text += [f"# {_cell(card.title)}", ""]
    for part in card.parts:
        text += [f"## {part.title}", "", *(f"{_cell(line)}\n" for line in part.lines)]
        if part.rows:
            text += ["| | |", "|---|---|", *(f"| {_cell(key)} | {_cell(value)} |" for key, value in part.rows.items())]
            text.append("")
        text += [f"```bash\n{part.code}\n```", ""] if part.code else []
    return "\n".join(text).rstrip() + "\n"


def _cell(text: str) -> str:
    """Text that no table or browser takes for anything else."""
    return printable(text).replace("|", "/").replace("<", "&lt;")


def _percent(values: Sequence[float]) -> str:
    return spread([100 * value for value in values]) + " %"


def _interval(runs: Sequence[Run]) -> Difference:
    """95 % interval of the number that decides: resampled as in a comparison, and seeds where there are several."""
    ap_SQ, pids_Q = np.stack([run.scores()[0] for run in runs]), runs[0].scores()[1]
    return paired_difference(ap_SQ, np.zeros_like(ap_SQ), pids_Q)


def _what(runs: Sequence[Run]) -> Part:
    first = runs[0]
    settings, latency = first.settings, first.cost["latency"]
    searched = first.settings.get("genotype")
    rows = {
        "architecture": first.model + (" (searched)" if searched else " (fixed)"),
        "attention": str(settings.get("attention")) if not searched else "what the search found, see genotype.json",
        "input": f"RGB, {settings['input.height'] or 'its own'} x {settings['input.width'] or 'its own'} pixels",
        "output": "a unit vector; the cosine of two is their similarity"
        if first.protocol.get("distance", "cosine") == "cosine"
        else "a vector; two are the more alike the smaller their Euclidean distance",
        "parameters": f"{first.cost['params']:,}",
        "multiply-accumulates": f"{first.cost['macs']:,} an image",
        "latency": f"{latency['median_ms']:.2f} ms an image ({latency['device']}, one at a time)",
        "started from": first.start,
        "information bottleneck bound": f"weight {settings['loss.eta']:g}",
    }
    return Part("What it is", [f"A network for {first.measure.purpose}, trained with dnas-reid."], rows)


def _data(run: Run) -> Part:
    found = as_dict(RunFolder(run.path).json("data.json"))
    counts: dict[str, str] = {
        name: ", ".join(f"{count:,} {what}" for what, count in as_dict(found.get(name)).items())
        for name in ("train", "query", "gallery", "test")
        if name in found
    }
    left_out = found.get("left_out")
    rows = {"name": run.data, **counts, "fingerprint (SHA-256)": run.fingerprint,
            "images left out": str(len(left_out) if isinstance(left_out, list) else 0)}  # fmt: skip
    return Part("Data", [], rows)


def _results(runs: Sequence[Run], interval: Difference) -> Part:
    first = runs[0]
    tested = first.summary["test"]
    measure = first.measure
    rows = {
        name: _percent([run.summary["test"][key] for run in runs])
        for key, name in measure.names.items()
        if key in tested
    }
    rows[f"{measure.name}, 95 % interval"] = (
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f} % (bootstrap of {measure.resampled})"
    )
    held = [run.summary["held_out"][measure.key] for run in runs if "held_out" in run.summary]
    rows |= {f"{measure.name}, held-out training {measure.unseen}": _percent(held)} if held else {}
    for name, values in as_dict(first.summary.get("information")).items():
        rows[f"IB, {name} (in log classes)"] = f"{values['IB']:.3f}"
    how = said(first.protocol)
    if measure is RETRIEVAL:
        ignored = first.protocol.get("cameras") == "ignore"
        own = "its own image" if ignored else "images of the same identity and camera"
        how += f", {own} left out; ties count wrong before right"
    lines = [
        f"Seed{'s' if len(runs) > 1 else ''} {', '.join(str(run.seed) for run in runs)}"
        + ("; mean ± standard deviation. " if len(runs) > 1 else "; one run: the spread over seeds is not known. ")
        + f"Measured on {measure.tested}, {how}; of the {first.summary.get('evaluated', 'last epoch')}."
    ]
    return Part("Results", lines, rows)


def _training(run: Run) -> Part:
    folder = RunFolder(run.path)
    seconds = sum(float(row.get("epoch_s", 0)) for row in folder.rows("timing.jsonl"))
    made = as_dict(folder.json("env.json"))
    machine = f"{made.get('cuda') or 'a CPU'} ({made.get('threads')} CPU threads)"
    rows = {
        "epochs": str(run.settings["optim.epochs"]),
        "time": f"{max(seconds / 60, 0.1):.1f} minutes on {machine}",
        "versions": ", ".join(f"{name} {made.get(name)}" for name in ("dnas-reid", "python", "torch")),
    }
    changed = {key: value for key, value in flat(folder.config()).items() if key in ("seed", "holdout", "optim.lr")}
    rows |= {key: str(value) for key, value in changed.items()}
    return Part("Training", [], rows, "dnas retrain --config config.yaml --out NEW   # the config.yaml of the run")


def _metadata(runs: Sequence[Run]) -> dict[str, Any]:
    """What the Hub reads. No licence: that of the weights is for who trained them to choose."""
    first, measure = runs[0], runs[0].measure
    kind = "image-classification" if measure is CLASSIFICATION else "image-feature-extraction"
    tags = ["person-re-identification", "image-retrieval", "metric-learning"] if measure is RETRIEVAL else []
    metrics = [
        {"type": key, "name": name, "value": round(float(np.mean([run.summary["test"][key] for run in runs])), 4)}
        for key, name in measure.names.items()
        if key in first.summary["test"]
    ]
    result = {
        "task": {"type": kind, "name": measure.purpose.capitalize()},
        "dataset": {"type": printable(first.data), "name": printable(first.data), "revision": first.fingerprint},
        "metrics": metrics,
    }
    return {
        "library_name": "dnas-reid",
        "pipeline_tag": kind,
        "tags": tags,
        "metrics": [metric["type"] for metric in metrics],
        "model-index": [{"name": printable(first.model), "results": [result]}],
    }
