"""What every estimator's step of the logits does: it follows the loss of the very draws, and the budget, downhill."""

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from dnas.data.augment import InputConfig
from dnas.nn.attention import site
from dnas.nn.cell_operations import SeparableConv
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.run.schedules import OptimConfig
from dnas.search.budget import Budget
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.estimators import ESTIMATORS
from dnas.search.relaxation import Relaxation
from dnas.search.search import Search
from dnas.space.holes import Width
from dnas.space.spec import OneOf, Space, decisions
from search_spaces import SPACES

Aim = Literal["at", "below"]
SPEC = Chain((ConvNormAct(Width("width", (2, 4, 8))), OneOf("op", {"skip": Skip(), "sep": SeparableConv(3)})))
SPACE = Space("test", SPEC, 16, 16)


def mean_gradient(mode: str, budget: BudgetConfig, values: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The logits' mean gradient where option k of `op` has the loss values[k]; and the probabilities of `op`."""
    relaxation = Relaxation(decisions(SPEC))
    with torch.no_grad():
        relaxation.logits_HK[1, 0] = 0.5
    estimator = ESTIMATORS[mode](relaxation, Budget(budget, SPACE), ArchConfig(mode))
    generator, total = torch.Generator().manual_seed(0), torch.zeros_like(relaxation.logits_HK)

    def loss() -> Tensor:
        return relaxation.draw.combine("op", lambda k: values[k].clone(), 2)

    for _ in range(steps):
        estimator.draw(1 + estimator.lessons, 1.0, generator)
        lesson = estimator.learn(loss, 1.0)
        total += torch.autograd.grad(lesson.task + lesson.shared, relaxation.logits_HK)[0]
    return total / steps, relaxation.probabilities()["op"]


@pytest.mark.parametrize("mode", ["score", "switch", "between"])
def test_the_loss_of_a_draw_is_put_to_that_draw(mode: str) -> None:
    values = torch.tensor([0.3, 1.0])
    found, p = mean_gradient(mode, BudgetConfig(), values, 1500)
    true = p * (values - (p * values).sum())
    torch.testing.assert_close(found[1, :2], true, rtol=0, atol=0.02)


@pytest.mark.parametrize("mode", ESTIMATORS)
@pytest.mark.parametrize(("macs", "sign"), [(1_000, 1), (10_000_000, -1)])
@pytest.mark.parametrize("aim", ["at", "below"])
def test_the_budget_pulls_from_the_sides_it_is_asked_to(mode: str, macs: int, sign: int, aim: Aim) -> None:
    """Descent makes wide and dear options less likely above the budget; below it more, or `below` nothing."""
    found, _ = mean_gradient(mode, BudgetConfig(macs=macs, aim=aim), torch.zeros(2), 60)
    if aim == "below" and sign < 0:
        assert not bool(found.any())
        return
    assert sign * float(found[0, 2] - found[0, 0]) > 0.01  # the widest over the narrowest
    assert sign * float(found[1, 1] - found[1, 0]) > 0.01  # a convolution over a skip


def test_the_cost_term_grows_with_weight_and_progress() -> None:
    cost = torch.tensor([250.0, 1000.0, 4000.0])
    for aim, expected in (("at", [1, 0, 1]), ("below", [0, 0, 1])):
        budget = Budget(BudgetConfig(macs=1000, weight=3.0, aim=aim), SPACE)  # type: ignore[arg-type]
        for progress in (0.0, 0.5, 1.0):
            wanted = 3.0 * progress * math.log(4) * torch.tensor(expected)
            torch.testing.assert_close(budget.excess(cost, progress), wanted)


@pytest.fixture
def state(pedestrians: Path, tmp_path: Path) -> Search:
    config = SearchConfig(
        str(pedestrians), str(tmp_path), holdout=0.4, device="cpu",
        input=InputConfig(height=32, width=16, flip=0.0, pad=0, erase=0.0),
        optim=OptimConfig(epochs=4, identities=3, images=2), arch=ArchConfig(data="split", prior=None),
    )  # fmt: skip
    return Search(config, SPACES["tiny_reid"])


def test_logits_see_images_that_no_weight_was_trained_on(state: Search) -> None:
    seen: dict[str, set[bytes]] = {}
    for part in ("weights", "logits"):
        batches = state.task.batches(part, 0, 0, 4)  # type: ignore[arg-type]
        seen[part] = {image.numpy().tobytes() for inputs, _ in batches for image in inputs.contiguous()}
    assert len(seen["weights"]) > len(seen["logits"]) > 2
    assert not seen["weights"] & seen["logits"]


def test_the_search_takes_logits_from_their_own_batches(state: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = state.task.batches
    monkeypatch.setattr(state.task, "batches", lambda part, *rest: asked.append(part) or original(part, *rest))
    state.position.epoch = 3
    state.begin_epoch(3, 0)
    assert state.apart
    next(state.logit_batches)
    assert asked == ["logits"]


@pytest.mark.parametrize("mode", ["score", "switch", "between"])
def test_where_there_is_nothing_to_switch_to_nothing_is_learnt(mode: str, pedestrians: Path) -> None:
    """No choice has an option beside its skip, and the skips are left out: it was an AssertionError."""
    parts = [p for n in (1, 2) for p in (ConvNormAct(8 * n, 3, 2), site(f"stage{n}.attention", ("none", "se")))]
    config = SearchConfig(
        str(pedestrians), "", holdout=0.4, device="cpu", optim=OptimConfig(epochs=2, identities=3, images=2),
        arch=ArchConfig(mode, data="split", prior=None, weights_only=0.0),  # type: ignore[arg-type]
    )  # fmt: skip
    state = Search(config, Space("sites", Chain(tuple(parts)), 32, 16))
    state.begin_epoch(0, 0)
    state.idle_dropout = 1.0  # in a search it is 0.9 at first: all at once now and then
    state.step(0, *next(state.task.batches("weights", 0)), 0.0, False)
    assert not bool(state.relaxation.logits_HK.any())


def test_children_have_batch_norm_statistics_of_their_own(state: Search) -> None:
    """The mean over the calibration batches, of what enters the first norm, whatever the supernet's were."""
    for module in state.net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.fill_(1e3)
    child = state.children.recalibrated(state.choices)
    first = child.backbone[0]
    assert isinstance(first, nn.Sequential)
    convolution, norm = first[0], first[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        means = torch.stack([convolution(inputs).mean((0, 2, 3)) for inputs in state.task.calibration()])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    assert not child.training
