"""A planted optimum of twenty decisions: each site is to do what a fixed operation does; convolutions have to learn it.

Skip and both pools are exact from the start where they are right, and a fair guess elsewhere; a convolution is a bad
guess until it is trained, and right where nothing else is.
"""

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dnas.nn.cell_operations import NormConv, Pool, Zero
from dnas.nn.chain import Skip
from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig
from dnas.search.estimators import ESTIMATORS
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder
from dnas.space import cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Builder, OneOf, Space, Spec, decisions

SITES, STEPS, ALONE, SEEDS = 20, 240, 60, 10
X = Shape(Channels.of(4), 6, 6)
OPTIONS: dict[str, Spec] = {
    "zero": Zero(),
    "skip": Skip(),
    "avg": Pool("avg", norm=False),
    "max": Pool("max", norm=False),
    "conv": NormConv(kernel=3),
}


@dataclass(frozen=True)
class Sites(Spec):
    """Choices side by side."""

    sites: tuple[OneOf, ...]
    label = "sites"

    def cost(self, x: Shape) -> cost.Cost:
        return sum((site.cost(x) for site in self.sites), cost.Cost())

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return nn.ModuleList(site.build(x, builder) for site in self.sites)


def found(mode: str, seed: int) -> int:
    """How many of the twenty a search gets right."""
    torch.manual_seed(seed)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    spec = Sites(tuple(OneOf(f"site{h}", OPTIONS) for h in range(SITES)))
    best = {f"site{h}": rng.choice(["skip", "avg", "max", "conv"]) for h in range(SITES)}
    teachers = [OPTIONS[name].build(X, SupernetBuilder(Relaxation({}).draw)) for name in best.values()]
    relaxation = Relaxation(decisions(spec))
    budget = Budget(BudgetConfig(), Space("sites", spec, 6, 6))
    estimator = ESTIMATORS[mode](relaxation, budget, ArchConfig(mode))
    students = spec.build(X, SupernetBuilder(relaxation.draw))
    assert isinstance(students, nn.ModuleList)
    weights = torch.optim.Adam(students.parameters(), 0.02)
    logits = torch.optim.Adam(relaxation.parameters(), 0.05, betas=(0.5, 0.999))

    def loss() -> Tensor:
        parts = []
        for student, teacher in zip(students, teachers, strict=True):
            x = torch.randn(8, 4, 6, 6, generator=generator)
            with torch.no_grad():
                target = teacher(x)
            parts.append((student(x) - target).square().mean())
        return torch.stack(parts).sum()

    for step in range(STEPS):
        learning = step >= ALONE
        estimator.draw(1 + learning * estimator.lessons, 1.0, generator)
        estimator.use(0)
        weights.zero_grad()
        task = loss()
        if task.requires_grad:
            task.backward()
            weights.step()
        if learning:
            logits.zero_grad()
            lesson = estimator.learn(loss, step / STEPS)
            (lesson.task + lesson.shared).backward(inputs=[relaxation.logits_HK])
            logits.step()
    likeliest = {key: tuple(OPTIONS)[int(p.argmax())] for key, p in relaxation.probabilities().items()}
    return sum(likeliest[key] == name for key, name in best.items())


@pytest.mark.long
def test_the_default_finds_all_of_twenty() -> None:
    assert sum(found(ArchConfig().mode, seed) == SITES for seed in range(SEEDS)) >= 9
