"""How well the estimators of the logits' gradient see, on a planted loss whose gradient is known.

    python tools/bench/estimators.py [--rounds 40] [--json]

The loss adds up what each decision's option puts out, so that its gradient is known exactly: p_k (c_k - mean c), where
c_k is an option's planted share. Images add noise. Every estimator gets the logits' gradient of whole steps (of the
weights and of the logits, in one where it can), rounds of all estimators in turn. Printed for 12, 34 and 68 decisions:

    cosine      of one step's gradient with the true one, on average over the steps
    bias        1 - cosine of the mean gradient with the true one, corrected for the noise that is left in the mean
                (nan: too much of it)
    cosine^2/s  what a second of steps teaches; in the last column as a ratio to `score`

With --json the last line has `default_over_score_12`, `_34`, `_68` (the default of a search) and the same for every
estimator.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean, median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig
from dnas.search.estimators import ESTIMATORS
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, OneOf, Space, Spec, decisions

DECISIONS = (12, 34, 68)
OPTIONS = 5
CHANNELS, SIDE, BATCH = 16, 16, 32
NOISE = 1.5
"""Images then hide the shares from one step about as well as in trained supernets (cosines below one half)."""
VARIANTS: dict[str, ArchConfig] = {
    "score": ArchConfig("score"),
    "sampled": ArchConfig("sampled", data="joint"),
    "full": ArchConfig("full", data="joint"),
    "between": ArchConfig("between"),
    "switch one": ArchConfig("switch", data="joint", alternatives="one"),
    "switch all": ArchConfig("switch", data="joint", alternatives="all"),
}


@dataclass(frozen=True)
class PlantedConv(Spec):
    """A convolution with a constant that is its planted share of the loss."""

    share: float
    label = "planted"

    def cost(self, x: Shape) -> cost.Cost:
        return cost.conv(x.channels, x.channels, 3, x.positions)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return PlantedModule(x.channels.size, self.share)


class PlantedModule(nn.Module):
    """x (B, C, H, W) -> conv(x) + share: of mean `share` where x has mean zero."""

    def __init__(self, channels: int, share: float) -> None:
        super().__init__()
        self.conv, self.share = nn.Conv2d(channels, channels, 3, padding=1, bias=False), share
        nn.init.normal_(self.conv.weight, std=NOISE)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.conv(x_BCHW) + self.share
        return y


@dataclass(frozen=True)
class Sum(Spec):
    """The sum of parts that all see the same input."""

    parts: tuple[Spec, ...]
    label = "sum"

    def cost(self, x: Shape) -> cost.Cost:
        return sum((part.cost(x) for part in self.parts), cost.Cost())

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return SumModule([part.build(x, builder) for part in self.parts])


class SumModule(nn.Module):
    """x -> the sum over the parts."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        total: Tensor = sum(part(x_BCHW) for part in self.parts)
        return total


class Planted:
    """Whole steps of one estimator on the planted loss. The weights' optimiser works, and moves nothing."""

    def __init__(self, count: int, arch: ArchConfig) -> None:
        torch.manual_seed(0)
        share_HK = torch.randn(count, OPTIONS)
        x = Shape(Channels.of(CHANNELS), SIDE, SIDE)
        choices = (
            OneOf(f"choice{h}", {f"option{k}": PlantedConv(float(share)) for k, share in enumerate(row)})
            for h, row in enumerate(share_HK)
        )
        spec = Sum(tuple(choices))
        self.relaxation = Relaxation(decisions(spec))
        budget = Budget(BudgetConfig(), Space("planted", spec, SIDE, SIDE))
        self.estimator, self.arch = ESTIMATORS[arch.mode](self.relaxation, budget, arch), arch
        self.net = spec.build(x, SupernetBuilder(self.relaxation.draw)).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.SGD(self.net.parameters(), 0.0, momentum=0.9)
        self.generator = torch.Generator().manual_seed(1)
        self.true_HK = (share_HK - share_HK.mean(1, keepdim=True)) / OPTIONS

    def loss(self, images: Tensor) -> Tensor:
        value: Tensor = self.net(images).mean()
        return value

    def images(self) -> Tensor:
        """Noise, with an offset for each image and channel that its mean over positions does not take away."""
        noise = torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=self.generator)
        offset = torch.randn(BATCH, CHANNELS, 1, 1, generator=self.generator)
        return (noise + offset).contiguous(memory_format=torch.channels_last)

    def step(self) -> tuple[Tensor, float]:
        """The logits' gradient of a whole step, and its seconds."""
        estimator, logits_HK = self.estimator, self.relaxation.logits_HK
        joint = estimator.joint and self.arch.data == "joint"
        images, others = self.images(), self.images()
        self.optimiser.zero_grad()
        start = time.perf_counter()
        estimator.draw(1 if joint else 1 + estimator.lessons, 1.0, self.generator)
        estimator.use(0, gradient=joint)
        self.loss(images).backward()
        self.optimiser.step()
        if not joint:
            lesson = estimator.learn(lambda: self.loss(others), 0.5)
            (lesson.task + lesson.shared).backward(inputs=[logits_HK])
        seconds = time.perf_counter() - start
        gradient, logits_HK.grad = logits_HK.grad, None
        assert gradient is not None
        return gradient, seconds


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def bias(steps_NHK: Tensor, true_HK: Tensor) -> float:
    """1 - cosine of the expected gradient: its squared length is estimated from the products of two halves.

    NaN where the noise is larger than what the halves have in common.
    """
    one, other = steps_NHK[::2].mean(0), steps_NHK[1::2].mean(0)
    length = float((one * other).sum())
    if length <= 0.1 * float((one * one).sum()):
        return math.nan
    return 1 - float((steps_NHK.mean(0) * true_HK).sum()) / (math.sqrt(length) * float(true_HK.norm()))


def in_turn(steps: Mapping[str, Callable[[], tuple[Tensor, float]]], rounds: int) -> dict[str, tuple[Tensor, float]]:
    """Gradients (N, H, K) of every variant's steps, and the seconds of the median one."""
    found: dict[str, list[tuple[Tensor, float]]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            one = step()
            if turn:  # the first one is to get warm
                found[name].append(one)
    return {name: (torch.stack([g for g, _ in rows]), median(s for _, s in rows)) for name, rows in found.items()}


def measured(count: int, rounds: int) -> Iterator[tuple[str, float, float, float]]:
    """Name, cosine of a step, bias, and cosine^2 per second of every variant."""
    planted = {name: Planted(count, arch) for name, arch in VARIANTS.items()}
    for name, (steps_NHK, seconds) in in_turn({key: one.step for key, one in planted.items()}, rounds).items():
        true_HK = planted[name].true_HK
        one = mean(cosine(step_HK, true_HK) for step_HK in steps_NHK)
        yield name, one, bias(steps_NHK, true_HK), one**2 / seconds


def default_variant() -> str:
    """The variant that a search takes without being asked."""
    arch = ArchConfig()
    return f"{arch.mode} {arch.alternatives}" if arch.mode == "switch" else arch.mode


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = Table(
        "decisions", "estimator", "cosine", "bias", "cosine^2/s", "over score", title="on a planted additive loss"
    )
    ratios: dict[str, float] = {}
    for count in DECISIONS:
        rows = list(measured(count, options.rounds))
        score = next(rate for name, *_, rate in rows if name == "score")
        for name, one, off, rate in rows:
            table.add_row(str(count), name, f"{one:.3f}", f"{off:.3f}", f"{rate:.2f}", f"{rate / score:.2f}")
            ratios[f"{name.replace(' ', '_')}_over_score_{count}"] = round(rate / score, 3)
        ratios[f"default_over_score_{count}"] = ratios[f"{default_variant().replace(' ', '_')}_over_score_{count}"]
    Console(width=100).print(table)
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
