"""The estimator `between`: for a choice on its own, the gradient of the expected loss, whatever the loss."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnas.nn.attention import ATTENTION
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig
from dnas.search.estimators.between import Between
from dnas.search.estimators.switch import Switch
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import OpenSources, SupernetBuilder
from dnas.space.holes import Width
from dnas.space.spec import Space, decisions
from tests.search.test_switch import CASES, X

NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
WIDTHS = ConvNormAct(Width("width", (2, 4, 7)), 3)
CHOICES = {
    **CASES,
    "widths": WIDTHS,
    **{f"widths, {name}": Chain((WIDTHS, ATTENTION[name], ConvNormAct(7, 1))) for name in ("channel", "cbam_spatial")},
}
WIDE = [name for name in CHOICES if name.startswith("widths")]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def estimators(name: str) -> list[Switch]:
    """`between` and `switch` over the same logits."""
    torch.manual_seed(0)
    relaxation = Relaxation(decisions(CHOICES[name]))
    nn.init.normal_(relaxation.logits_HK)
    budget = Budget(BudgetConfig(), Space("test", CHOICES[name], 8, 8))
    return [kind(relaxation, budget, ArchConfig("between")) for kind in (Between, Switch)]


@pytest.mark.parametrize("name", ["operations", "shared blocks", *WIDE, "inputs of a node"])
def test_it_is_exact_for_any_loss_of_one_choice(name: str) -> None:
    """Over every pair of options, and over the way between them by quadrature; `switch` is not."""
    between, switch = estimators(name)
    relaxation, spec = between.relaxation, CHOICES[name]
    ((key, decision),) = relaxation.decisions.items()
    builder, images = SupernetBuilder(relaxation.draw), torch.randn(3, 4, 6, 5)
    target = torch.randn(3, 7 if spec.out(X).channels.size == 7 else 4, 6, 5)
    if name == "inputs of a node":
        sources, edges = OpenSources(spec, builder.draw), [nn.Conv2d(4, 4, 1) for _ in range(3)]  # type: ignore[arg-type]

        def output() -> Tensor:
            found: Tensor = sources(lambda state: edges[state](images))
            return found
    else:
        network = spec.build(X, builder)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)

        def output() -> Tensor:
            found: Tensor = network(images)
            return found

    def loss() -> Tensor:
        return (output().tanh() - target).square().sum().log()  # far from linear

    p, expected = relaxation.distribution()[key], torch.zeros(())
    for k, option in enumerate(decision.options):
        relaxation.fix({key: option})
        expected = expected + p[k] * loss().detach()
    true = torch.autograd.grad(expected, relaxation.logits_HK)[0]
    found = {}
    for estimator in (between, switch):
        total = torch.zeros_like(true)
        for k, j in itertools.permutations(range(len(p)), 2):
            noise_HK = torch.zeros_like(relaxation.logits_HK)
            noise_HK[0, k], noise_HK[0, j] = 2000.0, 1000.0
            estimator.draws = relaxation.draws_for(noise_HK[None], 1.0)
            probability = float(p[k].detach() * p[j].detach() / (1 - p[k].detach()))
            for node, weight in zip(NODES, WEIGHTS, strict=True):
                if isinstance(estimator, Between):
                    estimator.places_NH = torch.full((1, 1), (node + 1) / 2)
                estimator.use(0, gradient=True)
                total += probability * weight / 2 * torch.autograd.grad(loss(), relaxation.logits_HK)[0]
        found[type(estimator).__name__] = total
    error = {kind: float((one - true).abs().max() / true.abs().max()) for kind, one in found.items()}
    assert error["Between"] < (
        3e-3 if name == "widths, cbam_spatial" else 1e-6
    )  # quadrature sees where the maximum turns
    assert error["Switch"] > 10 * error["Between"]


def test_weights_are_trained_under_the_drawn_options_alone() -> None:
    between, _ = estimators("operations")
    between.draw(2, 1.0, torch.Generator().manual_seed(0))
    between.use(0)
    assert between.relaxation.draw.weights["op"].sort().values.tolist() == [0.0, 0.0, 0.0, 1.0]
    between.use(1, gradient=True)
    row = between.relaxation.draw.weights["op"].detach()
    assert 0 < float(row.max()) < 1
    assert float(row.sum()) == pytest.approx(1.0)
    assert not between.joint
