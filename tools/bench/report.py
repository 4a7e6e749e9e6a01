"""How long the report of a search takes, by the number of its epochs.

    python tools/bench/report.py [--epochs 100] [--space fbnetv2_reid_ops] [--json]

A search of one epoch on a few synthetic pedestrians, its log stretched to so many; against the report of the one
epoch. Keys: report_s, over_one_epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import interleaved, ratio

from dnas.cli import main as dnas
from dnas.run.files import write_text
from retrain.report import make_report


def stretched(source: Path, out: Path, epochs: int) -> None:
    """The search with so many epochs in its log, probabilities wandering."""
    shutil.copytree(source, out)
    row = json.loads((source / "metrics.jsonl").read_text().splitlines()[0])
    rng, rows = np.random.default_rng(0), []
    logits = {key: np.zeros(len(p)) for key, p in row["probabilities"].items()}
    for epoch in range(epochs):
        for key, values in logits.items():
            values += rng.normal(0, 0.2, len(values))
            row["probabilities"][key] = (np.exp(values) / np.exp(values).sum()).tolist()
        rows.append(json.dumps({**row, "epoch": epoch}))
    write_text(out / "metrics.jsonl", "\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--space", default="tiny_reid")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DNAS_CACHE"] = str(folder / "cache")
        words = ["--ids", "10", "--cameras", "2", "--images", "2", "--height", "32", "--width", "16"]
        dnas(["data", "synth", str(folder / "data"), *words])
        words = ["--data", str(folder / "data"), "--space", options.space, "--holdout", "0.4", "--optim.epochs", "1"]
        words += ["--input.height", "32", "--input.width", "16", "--optim.identities", "2", "--optim.images", "2"]
        if dnas(["search", *words, "--out", str(folder / "one")]) != 0:
            raise SystemExit(1)
        stretched(folder / "one", folder / "long", options.epochs)
        seconds = interleaved(
            {run: partial(make_report, [str(folder / run)], folder / f"{run}.html") for run in ("one", "long")},
            options.rounds,
        )
    middle = float(np.median(seconds["long"]))
    times, low, high = ratio(seconds["long"], seconds["one"])
    table = Table("epochs", "seconds", "over one epoch", title=f"report of a search in {options.space}")
    table.add_row("1", f"{float(np.median(seconds['one'])):.1f}", "")
    table.add_row(str(options.epochs), f"{middle:.1f}", f"{times:.2f} [{low:.2f}, {high:.2f}]")
    Console().print(table)
    if options.json:
        print(json.dumps({"report_s": middle, "over_one_epoch": times}))


if __name__ == "__main__":
    main()
