"""What supernets of docs/results/nas-bench-201.md say of random cells, by the table: logits, verdicts, options, prior.

    python tools/results/nas_bench_201_options.py TABLE RUN [RUN ...]

RUN: finished searches with `arch.samples_from uniform` and a prior (variant `between, prior, by options`). Nothing is
trained. For every search the cell that would be derived by

    logits    the logits
    verdicts  what the options add to the held-out verdicts on random cells
    prior     what they add to the prior's score
    both      the last two together: what the search derived

with its test accuracy after 200 epochs, and the Spearman correlations of their sums, and of the verdicts themselves,
with the table over the random cells and over the better half. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from nas_bench_201_report import Benchmark
from rich.console import Console
from rich.table import Table

from dnas.eval.correlation import spearman
from dnas.search.effects import main_effects
from dnas.search.prior import believed
from dnas.search.search import opened
from dnas.space.spec import Choices
from search_spaces import named_space
from search_spaces.nas_bench_201 import cell_string

Effects = Mapping[str, Sequence[float]]


def said(folder: Path, benchmark: Benchmark) -> dict[str, dict[str, float]]:
    """Name of what speaks -> accuracy of the cell that it derives, correlations over all and over the better half."""
    state, run = opened(folder, named_space, "cpu")
    known = state.relaxation.decisions
    sampled = list(run.rows())[-1]["sampled"]
    cells: list[Choices] = [row["choices"] for row in sampled]
    scores = [float(row[state.task.metric]) for row in sampled]
    verdicts = main_effects(known, cells, scores).of
    prior = believed(state.space, state.task, state.budget, state.config.seed).of
    both = {key: [a + b for a, b in zip(verdicts[key], prior[key], strict=True)] for key in known}
    truth = np.array([benchmark.long[cell_string(cell)] for cell in cells])
    better = truth >= np.median(truth)

    def correlations(values: Sequence[float]) -> dict[str, float]:
        return {
            "all": spearman(values, truth.tolist()).value,
            "better": spearman(np.array(values)[better].tolist(), truth[better].tolist()).value,
        }

    found: dict[str, dict[str, float]] = {"verdicts themselves": correlations(scores)}
    speakers: dict[str, Effects] = {
        "logits": state.relaxation.logits(), "verdicts": verdicts, "prior": prior, "both": both,
    }  # fmt: skip
    for name, effects in speakers.items():
        derived = state.budget.derive(state.relaxation, {key: list(own) for key, own in effects.items()})
        sums = [sum(effects[key][one.index(cell[key])] for key, one in known.items()) for cell in cells]
        found[name] = {"accuracy": benchmark.long[cell_string(derived)], **correlations(sums)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    benchmark = Benchmark(options.table)
    found = [said(folder, benchmark) for folder in options.runs]
    table = Table("said by", "derived (%)", "of the runs", "correlation, all", "better half")
    for name in found[0]:
        own = [run[name].get("accuracy") for run in found]
        values = [value for value in own if value is not None]
        table.add_row(
            name, f"{mean(values):.2f}" if values else "", " ".join(f"{value:.1f}" for value in values),
            *(" ".join(f"{run[name][key]:.2f}" for run in found) for key in ("all", "better")),
        )  # fmt: skip
    Console(width=150).print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
