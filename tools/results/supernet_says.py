"""What a supernet and a prior say of random networks, against trainings of these (docs/results/search.md).

    python tools/results/supernet_says.py OUT

OUT: of `search.py run`, whose random networks are trained. Nothing is trained, and nothing is written. For every search
there, the Spearman correlations of the random networks' mAP (query and gallery, mean of their trainings) with

    logits    the sum of the logits of their options
    loss      the training loss with the supernet's weights, over the same batches
    to loss   what their options add to that on other random networks of the budget
    held out  the held-out metric with the supernet's weights
    options   what their options add to that metric on those other networks (arch.samples_from uniform)
    prior     what their options add to NASWOT (arch.prior naswot)
    both      the last two together

and in the last line those of the mean over the searches.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr, zscore
from search import results

from dnas.search.beginning import losses
from dnas.search.effects import main_effects
from dnas.search.prior import believed
from dnas.search.random_networks import cost_window, random_networks
from dnas.search.search import opened
from dnas.space.genotype import read_genotype
from dnas.space.spec import Choices
from search_spaces import named_space

BATCHES, OTHERS = 8, 100


def verdicts(folder: Path, networks: Sequence[Choices]) -> dict[str, np.ndarray]:
    """What is said of every network; more is better."""
    state, _ = opened(folder, named_space, "cpu")
    known, budget, task = state.relaxation.decisions, state.budget, state.task

    def sums(of: Mapping[str, Sequence[float]]) -> np.ndarray:
        return np.array([sum(of[key][one.index(net[key])] for key, one in known.items()) for net in networks])

    def less_loss(of: Sequence[Choices]) -> list[float]:
        batches = task.batches("logits", 0, 0, BATCHES)
        found: list[float] = losses(of, state.relaxation, state.net, state.loss, batches).neg().tolist()
        return found

    others = random_networks(known, OTHERS, 1, budget.count, cost_window(budget.config.limit))
    options = sums(main_effects(known, others, [state.children.score(net, task) for net in others]).of)
    prior = sums(believed(state.space, task, budget, state.config.seed).of)
    return {
        "logits": sums(state.relaxation.logits()),
        "loss": np.array(less_loss(networks)),
        "to loss": sums(main_effects(known, others, less_loss(others)).of),
        "held out": np.array([state.children.score(net, task) for net in networks]),
        "options": options,
        "prior": prior,
        "both": options + prior,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    trained = [mean(maps) for _, maps in results(out, "random")]
    folders = sorted(out.glob("random-[0-9]*"))
    networks = [read_genotype(f / "genotype.json").choices for f in folders if f.is_dir() and "-seed" not in f.name]
    found: dict[str, list[np.ndarray]] = {}
    table = Table(title=f"Spearman correlation with the mAP of {len(networks)} random networks")
    for folder in sorted(path for path in out.glob("search-*") if path.is_dir()):
        said = verdicts(folder, networks)
        if not found:
            for column in ("search", *said):
                table.add_column(column)
        for name, values in said.items():
            found.setdefault(name, []).append(np.nan_to_num(zscore(values)))  # all alike: nothing is said
        table.add_row(folder.name, *(f"{spearmanr(values, trained)[0]:.2f}" for values in said.values()))
    means = [spearmanr(np.mean(values, 0), trained) for values in found.values()]
    table.add_row("their mean", *(f"{value:.2f} (p {p:.2f})" for value, p in means))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
