"""The estimators of the logits' gradient, what a draw leaves out, and the schedules."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dnas.nn.conv import ConvNormAct
from dnas.run import seeds
from dnas.run.position import Pauses, Stop
from dnas.run.schedules import OptimConfig, geometric
from dnas.search.config import ArchConfig, SearchConfig
from dnas.search.estimators.estimator import Estimator
from dnas.search.estimators.sampled import Sampled
from dnas.search.estimators.score import leave_one_out
from dnas.search.relaxation import Relaxation
from dnas.search.search import Search
from dnas.search.supernet import SupernetBuilder
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Decision, OneOf
from search_spaces import SPACES
from tests.estimators import estimator, sample

OPS = torch.tensor([1.0, 0.5])
"""Two operations that output a number; the loss is (y - 1)^2, so at equal logits the true gradient is -1/16."""


def two_operations() -> Relaxation:
    return Relaxation({"op": Decision("op", ("one", "half"))})


def test_straight_through_is_biased_and_the_score_is_not() -> None:
    """The mean over many draws has the wrong sign (method.md, section 4); the score's is exact over all draws."""
    relaxation = two_operations()
    p = relaxation.logits_HK.softmax(1)[0]
    (p * (OPS - 1) ** 2).sum().backward()
    assert relaxation.logits_HK.grad is not None
    true = relaxation.logits_HK.grad.clone()
    assert true[0, 0] == pytest.approx(-1 / 16)
    generator, total = torch.Generator().manual_seed(0), torch.zeros(1, 2)
    for _ in range(3000):
        sample("sampled", relaxation, generator)
        relaxation.logits_HK.grad = None
        k = relaxation.drawn()["op"]
        y = relaxation.draw.weights["op"][k] * OPS[k]  # only the drawn operation is run
        ((y - 1) ** 2).backward()
        total += relaxation.logits_HK.grad
    assert 0.02 < float(total[0, 0]) / 3000 < 0.06
    for logits in ([0.0, 0.0], [0.3, -1.1]):
        with torch.no_grad():
            relaxation.logits_HK.copy_(torch.tensor([logits]))
        relaxation.logits_HK.grad = None
        p = relaxation.logits_HK.softmax(1)[0]
        (p * (OPS - 1) ** 2).sum().backward()
        true, expected = relaxation.logits_HK.grad.clone(), torch.zeros(1, 2)
        for draws in itertools.product((0, 1), repeat=3):  # every outcome of three draws, by its probability
            relaxation.logits_HK.grad = None
            log_p_R = relaxation.logits_HK.log_softmax(1)[0, list(draws)]
            leave_one_out((OPS[list(draws)] - 1) ** 2, log_p_R).backward()
            expected += relaxation.logits_HK.grad * float(p.detach()[list(draws)].prod())
        torch.testing.assert_close(expected, true, rtol=0, atol=1e-7)


def test_straight_through_is_blind_before_a_batch_norm() -> None:
    """It feels an operation by the scale of its output alone, and a batch norm takes the scale away."""
    torch.manual_seed(0)
    options = {"conv": ConvNormAct(4, 1), "wide": ConvNormAct(4, 3)}
    relaxation = Relaxation({"op": Decision("op", ("conv", "wide"))})
    x = Shape(Channels.of(3), 8, 8)
    mixed = OneOf("op", options).build(x, SupernetBuilder(relaxation.draw)).double()
    after = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, eps=1e-12)).double()
    images, weights = torch.randn(8, 3, 8, 8).double(), torch.randn(4, 8, 8).double()

    def gradient(network: nn.Module) -> float:
        relaxation.logits_HK.grad = None
        sample("sampled", relaxation, torch.Generator().manual_seed(1))
        (network(images) * weights).mean().backward()
        assert relaxation.logits_HK.grad is not None
        return float(relaxation.logits_HK.grad.abs().max())

    assert gradient(mixed) > 1e-3
    assert gradient(nn.Sequential(mixed, after)) < 1e-9


@pytest.mark.parametrize("mode", ["sampled", "score"])
def test_draws_are_one_hot_and_their_probability_is_theirs(mode: str) -> None:
    relaxation = Relaxation({"a": Decision("a", ("x", "y", "z")), "b": Decision("b", (1, 2), "width")})
    nn.init.normal_(relaxation.logits_HK)
    drawing = estimator(mode, relaxation)
    drawing.draw(50, 1.0, torch.Generator().manual_seed(0))
    log_p_N, p = relaxation.log_probability(drawing.draws), relaxation.probabilities()
    for n in range(50):
        drawing.use(n)
        drawn = relaxation.drawn()
        assert float(log_p_N[n].exp().detach()) == pytest.approx(
            float(p["a"][drawn["a"]] * p["b"][drawn["b"]]), rel=1e-5
        )
        for key, weights in relaxation.draw.weights.items():
            assert weights.tolist() == [float(k == drawn[key]) for k in range(len(weights))]
            assert not weights.requires_grad
    drawing.use(0, gradient=True)
    assert relaxation.draw.weights["a"].requires_grad == (mode == "sampled")


def test_a_look_at_the_supernet_does_not_stop_its_training() -> None:
    """What inference mode computed first and keeps must serve a later step with gradients."""
    c = Channels((4, 8), "w")
    relaxation = Relaxation({"w": Decision("w", (4, 8), "width")})
    relaxation.fix({"w": 4})
    with torch.inference_mode():
        relaxation.draw.mask(c)
    sample("sampled", relaxation, torch.Generator().manual_seed(0))
    (relaxation.draw.mask(c) * torch.arange(8)).sum().backward()
    assert relaxation.logits_HK.grad is not None
    assert bool(relaxation.logits_HK.grad.any())


@pytest.mark.parametrize("mode", ["full", "sampled", "score"])
def test_idle_dropout_leaves_out_skip_and_zero(mode: str) -> None:
    known = {
        "a": Decision("a", ("skip", "conv", "zero"), idle=(0, 2)),
        "only idle": Decision("only idle", ("skip", "zero"), idle=(0, 1)),
        "w": Decision("w", (8, 16), "width"),
    }
    relaxation = Relaxation(known)
    drawing = estimator(mode, relaxation)
    for step in range(20):
        drawing.draw(2, 1.0, torch.Generator().manual_seed(step), idle_dropout=1.0)
        drawing.use(1)
        assert relaxation.draw.weights["a"].tolist() == [0.0, 1.0, 0.0]
        assert float(relaxation.draw.weights["only idle"].sum()) == pytest.approx(1.0)
        if mode == "score":  # what is left out has no part in the probability
            assert float(relaxation.log_probability(drawing.draws)[0].detach()) == pytest.approx(-2 * math.log(2))


def test_draws_depend_on_seed_epoch_and_step_alone() -> None:
    """Every rank and every resumed run draws the same, whatever random numbers it used before."""
    drawn = []
    for rank in range(2):
        torch.manual_seed(rank)
        relaxation = Relaxation({str(k): Decision(str(k), ("x", "y", "z")) for k in range(40)})
        torch.rand(rank)
        drawing = estimator("score", relaxation)
        steps = []
        for step in range(3):
            drawing.draw(2, 1.0, seeds.generator(7, "draw", 2, step), 0.5)
            for n in range(2):
                drawing.use(n)
                steps.append(dict(relaxation.drawn()))
        drawn.append(steps)
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in itertools.combinations(drawn[0], 2))


def test_temperature_follows_its_schedule() -> None:
    """FBNet: 5.0, times 0.956 in each of 90 epochs; other lengths keep start and end."""
    for epoch in range(90):
        assert geometric(5.0, 5.0 * 0.956**89, epoch, 90) == pytest.approx(5.0 * 0.956**epoch)
    for epochs in (2, 7, 31):
        values = [geometric(5.0, 0.1, epoch, epochs) for epoch in range(epochs)]
        assert (values[0], values[-1]) == (5.0, pytest.approx(0.1))
        ratios = {round(b / a, 9) for a, b in itertools.pairwise(values)}
        assert len(ratios) == 1
    assert geometric(5.0, 0.1, 0, 1) == 5.0


def test_the_search_uses_the_schedules(pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch by epoch: how many draws there are, their temperature, idle dropout, and which epochs train logits."""
    used: list[tuple[int, float, float]] = []
    gradients: list[bool] = []
    draw, use = Estimator.draw, Sampled.use

    def spy_draw(
        self: Estimator, count: int, temperature: float, generator: torch.Generator, idle: float, uniform: float
    ) -> None:
        used.append((count, temperature, idle))
        draw(self, count, temperature, generator, idle, uniform)

    def spy_use(self: Sampled, n: int, gradient: bool = False) -> None:
        gradients.append(gradient)
        use(self, n, gradient)

    monkeypatch.setattr(Estimator, "draw", spy_draw)
    monkeypatch.setattr(Sampled, "use", spy_use)
    config = SearchConfig(
        str(pedestrians), str(tmp_path / "run"), holdout=0.4, eval_every=0, device="cpu",
        optim=OptimConfig(epochs=4, identities=3, images=2),
        arch=ArchConfig(
            mode="sampled", data="split", temperature=4.0, temperature_end=0.5, idle_dropout=0.6, weights_only=0.25,
            prior=None,
        ),
    )  # fmt: skip
    state = Search(config, SPACES["tiny_reid"].resized(32, 16))
    before: list[Tensor] = []
    for epoch in range(4):
        used.clear()
        gradients.clear()
        state.position.begin()
        state.position.epoch = epoch
        before.append(state.relaxation.logits_HK.detach().clone())
        metrics = state.train_epoch(Pauses(config.checkpoint, state.position, Stop(), lambda: None))
        assert used
        for count, temperature, idle in used:
            assert (temperature, idle) == (pytest.approx(4.0 * 0.5**epoch), pytest.approx(0.6 * (1 - epoch / 3)))
            assert count == (2 if epoch else 1)  # none that is not used
        assert metrics["temperature"] == pytest.approx(4.0 * 0.5**epoch)
        trained = not torch.equal(before[-1], state.relaxation.logits_HK)
        assert trained == (epoch >= 1) == any(gradients)
