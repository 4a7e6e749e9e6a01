"""The estimator `switch`: on average over the draws, the gradient of the expected loss where that is linear."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from dnas.nn.cell_operations import NormConv, Pool, SeparableConv, Zero
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.nn.inverted_residual import InvertedResidual
from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig
from dnas.search.elastic import SharedInvertedResidual
from dnas.search.estimators.switch import Switch
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import DrawnBatchNorm2d, OpenSources, SupernetBuilder
from dnas.space.holes import Channels, Shape, Width
from dnas.space.spec import OneOf, Pair, Space, Spec, decisions
from search_spaces import SPACES

X = Shape(Channels.of(4), 6, 5)
OPERATIONS: dict[str, Spec] = {"zero": Zero(), "skip": Skip(), "conv": NormConv(), "pool": Pool("max")}
SHARED: dict[str, Spec] = {
    "k3": InvertedResidual(4, 3, 2),
    "k5": InvertedResidual(4, 5, 2),
    "e3": InvertedResidual(4, 3, 3),
}
NESTED: dict[str, Spec] = {"skip": Skip(), "more": Chain((Pool("avg"), OneOf("inner", OPERATIONS)))}
PAIRS: dict[str, Spec] = {"0+1": Pair((0, 1)), "0+2": Pair((0, 2)), "1+2": Pair((1, 2))}
CASES: dict[str, Spec] = {
    "operations": OneOf("op", OPERATIONS),
    "shared blocks": OneOf("op", SHARED),
    "nested": OneOf("outer", NESTED),
    "widths": ConvNormAct(Width("width", (2, 4, 7)), 3, activation=False),
    "inputs of a node": OneOf("inputs", PAIRS),
}
Alternatives = Literal["one", "all"]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def switch(spec: Spec, alternatives: Alternatives, budget: BudgetConfig | None = None) -> Switch:
    """The estimator of a description, with logits that are not uniform."""
    torch.manual_seed(0)
    relaxation = Relaxation(decisions(spec))
    nn.init.normal_(relaxation.logits_HK)
    space = Space("test", spec, 8, 8) if budget is None else replace(SPACES["tiny_reid"], spec=spec)
    config = ArchConfig("switch", alternatives=alternatives)
    return Switch(relaxation, Budget(budget or BudgetConfig(), space), config)


def outcomes(estimator: Switch, uniform: float = 0.0) -> Iterator[float]:
    """Puts every draw in use, with every way to draw the other option of each choice; yields its probability.

    Args:
        uniform: share of the uniform distribution in what is drawn from.
    """
    relaxation = estimator.relaxation
    p = {
        key: [(1 - uniform) * share + uniform / len(row) for share in row.tolist()]
        for key, row in relaxation.probabilities().items()
    }
    pairs = [list(itertools.permutations(range(len(row)), 2)) for row in p.values()]
    for drawn in itertools.product(*pairs):
        noise_HK, probability = torch.zeros_like(relaxation.logits_HK), 1.0
        for h, ((k, j), row) in enumerate(zip(drawn, p.values(), strict=True)):
            noise_HK[h, k], noise_HK[h, j] = 2000.0, 1000.0
            probability *= row[k] * row[j] / (1 - row[k])
        estimator.draws = relaxation.draws_for(noise_HK[None], 3.0, uniform=uniform)
        estimator.use(0, gradient=True)
        yield probability


def gradients(
    estimator: Switch, loss: Callable[[], Tensor], term: Callable[[], Tensor] | None = None, uniform: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The true gradient of the expected loss, and that of `term` (or of the loss itself) on average over all draws."""
    relaxation = estimator.relaxation
    logits_HK = relaxation.logits_HK
    expected, total = torch.zeros(()), torch.zeros_like(logits_HK)
    for choices in itertools.product(*(decision.options for decision in relaxation.decisions.values())):
        named = dict(zip(relaxation.decisions, choices, strict=True))
        relaxation.fix(named)
        numbers, p = relaxation.drawn(), relaxation.distribution()
        expected = expected + torch.stack([p[key][k] for key, k in numbers.items()]).prod() * loss().detach()
    true = torch.autograd.grad(expected, logits_HK)[0]
    for probability in outcomes(estimator, uniform):
        found = torch.autograd.grad((term or loss)(), logits_HK, allow_unused=True)[0]
        total += probability * (torch.zeros_like(logits_HK) if found is None else found)
    return true, total


@pytest.mark.parametrize("uniform", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("alternatives", ["one", "all"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "nested"])
def test_it_is_exact_where_the_loss_is_linear(name: str, alternatives: Alternatives, uniform: float) -> None:
    """Also from draws that follow something else than the logits."""
    spec = CASES[name]
    estimator = switch(spec, alternatives)
    builder = SupernetBuilder(estimator.relaxation.draw)
    images = torch.randn(3, 4, 6, 5)
    if name == "inputs of a node":
        sources, edges = OpenSources(spec, builder.draw), [nn.Conv2d(4, 4, 1) for _ in range(3)]  # type: ignore[arg-type]
        weight = torch.randn(3, 4, 6, 5)

        def loss() -> Tensor:
            return (sources(lambda state: edges[state](images)) * weight).sum()
    else:
        network = spec.build(X, builder)
        assert isinstance(network, SharedInvertedResidual) == (name == "shared blocks")
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.5)
        weight = torch.randn(3, spec.out(X).channels.size, 6, 5)

        def loss() -> Tensor:
            return (network(images) * weight).sum()

    true, found = gradients(estimator, loss, uniform=uniform)
    assert float(true.abs().max()) > 0.01
    torch.testing.assert_close(found, true, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alternatives", ["one", "all"])
def test_it_is_exact_for_a_choice_within_an_option(alternatives: Alternatives) -> None:
    estimator = switch(CASES["nested"], alternatives)
    network = CASES["nested"].build(X, SupernetBuilder(estimator.relaxation.draw))
    images, weight = torch.randn(3, 4, 6, 5), torch.randn(3, 4, 6, 5)
    true, found = gradients(estimator, lambda: (network(images) * weight).sum())
    torch.testing.assert_close(found, true, rtol=1e-9, atol=1e-9)


def test_two_choices_one_after_the_other_are_exact_where_the_second_is_linear() -> None:
    """The loss as a function of the first choice's output goes through the drawn second one: linear operations."""
    linear: dict[str, Spec] = {"zero": Zero(), "skip": Skip(), "pool": Pool("avg", norm=False)}
    spec = Chain((OneOf("first", OPERATIONS), OneOf("second", linear)))
    for alternatives in ("one", "all"):
        estimator = switch(spec, alternatives)  # type: ignore[arg-type]
        network = spec.build(X, SupernetBuilder(estimator.relaxation.draw))
        images, weight = torch.randn(3, 4, 6, 5), torch.randn(3, 4, 6, 5)
        true, found = gradients(estimator, lambda: (network(images) * weight).sum())  # noqa: B023
        torch.testing.assert_close(found, true, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("aim", ["at", "below"])
def test_the_cost_term_is_exact_on_average(aim: Literal["at", "below"]) -> None:
    """It is that of the draws: for an expectation, half cheap and half dear networks would meet the budget."""
    width = Width("width", (2, 4, 7))
    spec = Chain((ConvNormAct(width), OneOf("op", {"skip": Skip(), "sep": SeparableConv(3)}), ConvNormAct(width, 1)))
    estimator = switch(spec, "one", BudgetConfig(macs=500_000, aim=aim))
    space = estimator.budget.cost.macs
    assert space.at({"width": 0, "op": 0}) < 500_000 < space.at({"width": 2, "op": 1})

    def cost() -> Tensor:
        own = torch.tensor(float(space.at(estimator.relaxation.drawn())))
        return estimator.budget.excess(own, 0.5)

    def term() -> Tensor:
        found = estimator.terms(0.5)["cost"]
        assert float(found.detach()) == pytest.approx(float(cost()))
        return found

    true, found = gradients(estimator, cost, term)
    torch.testing.assert_close(found, true)
    assert float(true.abs().max()) > 0.01


@pytest.mark.parametrize("name", ["operations", "shared blocks", "nested", "widths"])
def test_alternatives_leave_no_trace(name: str) -> None:
    """Same output, same gradients of the weights and same running statistics as without any."""
    spec, images = CASES[name], torch.randn(3, 4, 6, 5)
    states = []
    for gradient in (False, True):
        estimator = switch(spec, "all")
        torch.manual_seed(1)
        network = spec.build(X, SupernetBuilder(estimator.relaxation.draw))
        norms = [m for m in network.modules() if isinstance(m, DrawnBatchNorm2d)]
        assert norms
        estimator.draw(1, 1.0, torch.Generator().manual_seed(2))
        estimator.use(0, gradient)
        y = network(images)
        y.square().sum().backward() if y.requires_grad else None
        grads = {n: p.grad for n, p in network.named_parameters()}
        states.append((y.detach(), grads, {n: b.clone() for n, b in network.named_buffers()}))
        assert (estimator.relaxation.logits_HK.grad is not None) == gradient
    (y, grads, buffers), (other_y, other_grads, other_buffers) = states
    torch.testing.assert_close(y, other_y, rtol=0, atol=0)
    assert all(torch.equal(buffers[n], other_buffers[n]) for n in buffers)
    for n, gradient_of in grads.items():
        other = other_grads[n]
        assert (gradient_of is None) == (other is None)
        assert gradient_of is None or other is None or torch.equal(gradient_of, other)


def test_what_cannot_be_drawn_is_no_alternative() -> None:
    spec = OneOf("op", {"skip": Skip(), "zero": Zero(), "conv": NormConv()})
    for alternatives in ("one", "all"):
        estimator = switch(spec, alternatives)  # type: ignore[arg-type]
        network = spec.build(X, SupernetBuilder(estimator.relaxation.draw))
        estimator.draw(1, 1.0, torch.Generator().manual_seed(0), idle_dropout=1.0)
        estimator.use(0, gradient=True)
        assert estimator.relaxation.drawn() == {"op": 2}
        network(torch.randn(2, 4, 6, 5)).sum().backward()
        gradient = estimator.relaxation.logits_HK.grad
        assert gradient is None or not bool(gradient.any())


def test_a_mask_that_an_alternative_asked_for_first_still_carries_a_gradient() -> None:
    width = Width("width", (2, 4, 7))
    estimator = switch(ConvNormAct(width), "all")
    estimator.draw(1, 1.0, torch.Generator().manual_seed(0))
    estimator.use(0, gradient=True)
    with torch.no_grad():
        estimator.relaxation.draw.mask(Channels.of(width))
    assert estimator.relaxation.draw.mask(Channels.of(width)).requires_grad
