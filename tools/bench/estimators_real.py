"""How well the estimators of the logits' gradient see, in supernets: cosine and bias against a measured truth.

    python tools/bench/estimators_real.py [--spaces tiny_reid,cells_reid_tiny] [--rounds 400] [--agreement 0.9] [--json]

A supernet is trained for a while on synthetic pedestrians by uniform draws, then held still. The truth is the mean
gradient of `score`, which is unbiased, with 16 draws a batch, until its two halves have a cosine of `--agreement` (or
`--most` batches are used up: what they agree to is printed and in the JSON). Then whole steps of every estimator, of
weights (which do not move) and logits, in turn:

    cosine      of one step's gradient with the truth, on average over the steps, with half of its 95 % interval
    bias        1 - cosine of the mean gradient with the truth, corrected for the noise that is left in both
                (nan: too much of it)
    cosine^2/s  what a second of steps teaches; in the last column as a ratio to `score`, with a 95 % interval
                (steps resampled)

`between, a third` is no estimator of a search: it is the control of what biases `between` (class `Third`).

Keys, for each space: agreement_SPACE, default_over_score_SPACE, default_bias_SPACE (left out where it is nan).
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from estimators import VARIANTS, bias, cosine, default_variant, in_turn
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dnas.data.synthetic import SynthConfig, synthesise
from dnas.run.schedules import OptimConfig
from dnas.search.config import ArchConfig, SearchConfig
from dnas.search.estimators import ESTIMATORS
from dnas.search.estimators.between import Between
from dnas.search.search import Search
from dnas.space.spec import Space
from search_spaces import named_space

SIZE = (64, 32)
TRUTH = ArchConfig("score", draws=16)


class Third(Between):
    """The control of the bias of `between`: a third of the choices is on its way, the others see no mixture of them."""

    turn = 0

    def others(self, n: int) -> dict[str, int | None]:
        found, generator = super().others(n), torch.Generator().manual_seed(self.turn)
        self.turn += 1
        moving = [list(found)[h] for h in torch.randperm(len(found), generator=generator)[: max(len(found) // 3, 1)]]
        return {key: j if key in moving else None for key, j in found.items()}


ESTIMATORS["between, a third"] = Third
COMPARED = {**VARIANTS, "between, a third": ArchConfig("between, a third")}
STILL = 1e-12
"""Learning rate of weights that are not to move: a step costs what it costs."""


def trained(space: Space, data: Path, epochs: int) -> Search:
    """A supernet after so many epochs of uniform draws."""
    optim = OptimConfig(epochs=2 * epochs, lr=3e-3, warmup=1, identities=8, images=4)
    config = SearchConfig(str(data), str(data / "none"), space=space.name, device="cpu", optim=optim)
    state = Search(replace(config, arch=ArchConfig("score", weights_only=0.5, prior=None)), space)
    for epoch in range(epochs):
        state.begin_epoch(epoch, 0)
        state.net.train()
        for number, (inputs, target) in enumerate(state.task.batches("weights", epoch)):
            state.step(number, inputs, target, float(epoch), False)
    return state


class Still:
    """Whole steps of one estimator in a supernet that stays as it is.

    Args:
        start: where weights and class statistics are from; its epochs are half of the schedule.
    """

    def __init__(self, start: Search, arch: ArchConfig, seed: int) -> None:
        config = start.config
        optim = replace(config.optim, lr=STILL)
        arch = replace(arch, weights_only=0.0, idle_dropout=0.0, lr=0.0)
        self.state = state = Search(replace(config, arch=arch, optim=optim, seed=seed), start.space)
        state.net.load_state_dict(start.net.state_dict())
        state.task.objective.load_state_dict(start.task.objective.state_dict())
        self.epoch, self.number = config.optim.epochs // 2, 0
        state.begin_epoch(self.epoch, 0)
        state.net.train()
        state.logits.optimiser.register_step_pre_hook(self._keep)
        self.batches = self._endless()
        state.logit_batches = self._endless()

    def _keep(self, *_: Any) -> None:
        gradient = self.state.relaxation.logits_HK.grad
        assert gradient is not None
        self.gradient_HK = gradient.clone()

    def _endless(self) -> Iterator[tuple[Tensor, Any]]:
        epoch = self.epoch
        while True:
            yield from self.state.task.batches("weights", epoch)
            epoch += 1

    def step(self) -> tuple[Tensor, float]:
        """The logits' gradient of a whole step, and its seconds."""
        inputs, target = next(self.batches)
        inputs = inputs.clone()  # the logits' batch takes its place
        start = time.perf_counter()
        self.state.step(self.number, inputs, target, float(self.epoch), False)
        self.number += 1
        return self.gradient_HK, time.perf_counter() - start

    def lesson(self) -> Tensor:
        """The logits' gradient of a step of theirs alone."""
        state = self.state
        noise = torch.Generator().manual_seed(self.number)
        state.estimator.draw(1 + state.estimator.lessons, 1.0, noise)
        self.number += 1
        state.logits(*next(state.logit_batches), float(self.epoch))
        return self.gradient_HK


def truth(start: Search, agreement: float, most: int) -> tuple[Tensor, float]:
    """Mean gradient, and the cosine of its two halves."""
    still = Still(start, TRUTH, seed=1)
    halves = [torch.zeros_like(still.state.relaxation.logits_HK) for _ in range(2)]
    found = 0.0
    for number in range(most):
        halves[number % 2] += still.lesson()
        found = cosine(*halves)
        if number >= 99 and number % 2 and found >= agreement:
            break
    return (halves[0] + halves[1]) / (number + 1), found


def measured(start: Search, rounds: int, true_HK: Tensor, agreed: float) -> Iterator[tuple[str, Tensor, float, float]]:
    """Name, cosines of the steps (N), bias, and seconds of a step of every variant."""
    alike = (2 * agreed / (1 + agreed)) ** 0.5  # cosine of the mean of two halves with what they both estimate
    still = {name: Still(start, arch, seed=2) for name, arch in COMPARED.items()}
    for name, (steps_NHK, seconds) in in_turn({key: one.step for key, one in still.items()}, rounds).items():
        cosines_N = torch.tensor([cosine(step_HK, true_HK) / alike for step_HK in steps_NHK])
        yield name, cosines_N, 1 - (1 - bias(steps_NHK, true_HK)) / alike, seconds


def resampled(values_N: Tensor, rounds: int = 4000) -> Tensor:
    """The mean, and then means of as many values drawn from them with replacement: the same ones in every call."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(values_N), (rounds, len(values_N)), generator=generator)
    return torch.cat([values_N.mean()[None], values_N[drawn].mean(1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spaces", default="tiny_reid,cells_reid_tiny")
    parser.add_argument("--epochs", type=int, default=12, help="of uniform draws")
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--agreement", type=float, default=0.9)
    parser.add_argument("--most", type=int, default=1000, help="batches for the truth")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = Table("space", "estimator", "cosine", "bias", "cosine^2/s", "over score", title="in supernets held still")
    keys: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        synthesise(SynthConfig(str(data), ids=48, cameras=3, images=4, height=SIZE[0], width=SIZE[1]))
        for name in options.spaces.split(","):
            start = trained(named_space(name).resized(*SIZE), data, options.epochs)
            true_HK, agreed = truth(start, options.agreement, options.most)
            rows = list(measured(start, options.rounds, true_HK, agreed))
            rates = {variant: resampled(cosines_N) ** 2 / seconds for variant, cosines_N, _, seconds in rows}
            for variant, cosines_N, off, _ in rows:
                half = 1.96 * float(cosines_N.std()) / len(cosines_N) ** 0.5
                one, rate = f"{float(cosines_N.mean()):.3f} ± {half:.3f}", f"{float(rates[variant][0]):.3f}"
                over, *others = (rates[variant] / rates["score"]).tolist()
                low, high = np.quantile(others, [0.025, 0.975])
                table.add_row(name, variant, one, f"{off:.3f}", rate, f"{over:.2f} [{low:.2f}, {high:.2f}]")
                if variant == default_variant():
                    keys[f"default_over_score_{name}"] = round(over, 3)
                    keys |= {} if math.isnan(off) else {f"default_bias_{name}": round(off, 3)}
            keys[f"agreement_{name}"] = round(agreed, 3)
    Console(width=100).print(table)
    print(", ".join(f"halves of the truth of {key[10:]} agree to {keys[key]}" for key in keys if "agreement" in key))
    if options.json:
        print(json.dumps(keys))


if __name__ == "__main__":
    main()
