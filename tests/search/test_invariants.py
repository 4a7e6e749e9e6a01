"""I1 to I4 of the method: what must be exact about the supernet, for every space and random genotypes."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from dnas.nn.channel_selection import ChannelSelection
from dnas.nn.reid_net import ReIDNet
from dnas.search.elastic import SharedInvertedResidual
from dnas.search.relaxation import Relaxation
from dnas.search.shared_blocks import SharedTransformerStage
from dnas.search.supernet import ChannelMask, DrawnBatchNorm2d, Mixed, OpenWidth, SupernetBuilder, inherit
from dnas.space.genotype import Genotype, check_genotype, read_genotype
from dnas.space.spec import Choice, Space, decisions, fill
from tests.estimators import estimator, sample
from tests.spaces import ALL, CELLS, random_choices

LARGE = [space.name for space in ALL if space.name.startswith("fbnetv2_reid") or space.name == "cells_reid"]
SHARING = ("tiny_reid", "fbnetv2_reid_ops", "attention_sites_vit")
"""Spaces some of whose options share weights."""
EVERY = [pytest.param(s, marks=pytest.mark.slow if s.name in LARGE else ()) for s in [*ALL, CELLS]]


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def supernet(space: Space, share: bool = True) -> tuple[ReIDNet, Relaxation]:
    relaxation = Relaxation(decisions(space.spec))
    net = ReIDNet(space.spec, space.input, 5, SupernetBuilder(relaxation.draw, share))
    for parameter in net.parameters():  # gains that start at zero would hide what they multiply
        nn.init.normal_(parameter, std=0.3)
    return net, relaxation


def child_of(space: Space, net: ReIDNet, choices: Mapping[str, Choice]) -> ReIDNet:
    child = ReIDNet(fill(space.spec, choices), space.input, 5)
    inherit(child, net, choices)
    return child


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of a channel does not depend on how many channels there are."""

    def noise(module: ChannelSelection, like: Tensor) -> Tensor:
        b, n, c = like.shape
        u = torch.rand(256, n, b, generator=torch.Generator().manual_seed(n)).permute(2, 1, 0)
        return torch.logit(u, eps=1e-6)[:, :, :c]

    monkeypatch.setattr(ChannelSelection, "noise", noise)


def in_modes() -> list[object]:
    """Every space in full and by draws (what takes longest: a long test); where options share weights, also apart."""
    found: list[object] = []
    for space in [*ALL, CELLS]:
        large, largest = space.name in LARGE, space.name == "fbnetv2_reid_ops"
        full = pytest.mark.long if largest else pytest.mark.slow if large else ()
        found.append(pytest.param(space, "full", marks=full))
        found.append(pytest.param(space, "sampled", marks=pytest.mark.long if large else ()))
        if space.name.startswith(("tiny_reid", "attention_sites_vit")):
            found.append(pytest.param(space, "apart"))
    return found


@pytest.mark.parametrize(("space", "mode"), in_modes(), ids=lambda value: getattr(value, "name", value))
def test_one_hot_supernet_is_the_child(space: Space, mode: str, same_noise: None) -> None:
    """`apart`: sampled, and no option shares weights with another."""
    net, relaxation = supernet(space, share=mode != "apart")
    assert any(isinstance(m, SharedInvertedResidual | SharedTransformerStage) for m in net.modules()) == (
        mode != "apart" and space.name.startswith(SHARING)
    )
    for seed in range(4):
        choices = random_choices(space, seed)
        child = child_of(space, net, choices)
        plain = {type(m) for m in child.modules()}
        assert not plain & {
            Mixed,
            SharedInvertedResidual,
            SharedTransformerStage,
            DrawnBatchNorm2d,
            ChannelMask,
            OpenWidth,
        }, "search code left in the child"
        relaxation.fix(choices)
        if mode == "full":  # every operation runs, all weights but one are zero
            relaxation.draw.index = None
        for training in (False, True):
            x = torch.randn(4, 3, space.height, space.width)
            expected, found = child.train(training)(x), net.train(training)(x)
            for a, b in zip(expected, found, strict=True):
                torch.testing.assert_close(b, a, rtol=0, atol=1e-10)
        assert found.logits_BC.abs().max() > 1e-3


@pytest.mark.parametrize("space", EVERY, ids=lambda s: s.name)
def test_cost_at_one_hot_is_the_counted_cost(space: Space) -> None:
    cost = space.spec.cost(space.input)
    relaxation = Relaxation(decisions(space.spec))
    for seed in range(20):
        choices = random_choices(space, seed)
        counted = fill(space.spec, choices).cost(space.input)
        relaxation.fix(choices)
        for open_count, closed_count in ((cost.macs, counted.macs), (cost.params, counted.params)):
            assert float(open_count.expected(relaxation.draw.weights)) == closed_count.value
            assert relaxation.draw.index is not None
            assert open_count.at(relaxation.draw.index) == closed_count.value


@pytest.mark.parametrize("space", EVERY, ids=lambda s: s.name)
def test_expected_cost_is_the_mean_over_independent_draws(space: Space) -> None:
    cost = space.spec.cost(space.input).macs
    relaxation = Relaxation(decisions(space.spec))
    nn.init.normal_(relaxation.logits_HK)
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(4000):
        sample("sampled", relaxation, generator, gradient=False)
        assert relaxation.draw.index is not None
        drawn.append(float(cost.at(relaxation.draw.index)))
    samples = torch.tensor(drawn)
    expected = float(cost.expected(relaxation.probabilities()))
    assert abs(float(samples.mean()) - expected) < 4 * float(samples.std()) / len(drawn) ** 0.5


@pytest.mark.parametrize("space", EVERY, ids=lambda s: s.name)
def test_genotype_round_trip(space: Space, tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "genotype.json"
    choices = random_choices(space, 3)
    Genotype.of(space, choices).save(file)
    read = read_genotype(file)
    check_genotype(read, space, file)
    assert fill(space.spec, read.choices) == fill(space.spec, choices)
    assert read.cost["macs"] == fill(space.spec, choices).cost(space.input).macs.value


def stated(space: Space) -> object:
    """Every parameter of a space is a sum over all of its options: the largest take the longest."""
    long, slow = space.name in LARGE, space.name in ("cells_reid_tiny", "nas_bench_201")
    return pytest.param(space, marks=pytest.mark.long if long else pytest.mark.slow if slow else ())


@pytest.mark.parametrize("space", [stated(space) for space in [*ALL, CELLS]], ids=lambda s: s.name)
def test_full_gradient_agrees_with_finite_differences(
    space: Space, same_noise: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With soft masks, none of them saturated."""
    net, relaxation = supernet(space)
    net.train()
    slopes: list[float] = []

    def soft_mask(module: ChannelSelection, noisy: Tensor) -> Tensor:  # hard masks have no finite differences
        soft = (noisy / module.temperature).sigmoid()
        slopes.append(float((soft * (1 - soft)).detach().mean()))
        return soft

    monkeypatch.setattr(ChannelSelection, "harden", soft_mask)
    x = torch.randn(6, 3, space.height, space.width)
    gumbel = -(-torch.rand_like(relaxation.logits_HK).log()).log()
    cost = space.spec.cost(space.input).macs
    drawing = estimator("full", relaxation)

    def loss() -> Tensor:
        drawing.draws = relaxation.draws_for(gumbel[None], 2.0, one_hot=False)
        drawing.use(0, gradient=True)
        value: Tensor = net(x).embedding_BD.tanh().mean() + cost.expected(relaxation.draw.weights) / 1e6
        return value

    loss().backward()
    assert all(slope > 0.02 for slope in slopes)  # of a sigmoid: at most 0.25
    assert bool(slopes) == any(isinstance(m, ChannelSelection) for m in net.modules())
    gradient = relaxation.logits_HK.grad
    assert gradient is not None
    assert bool((gradient[~relaxation.absent_HK] != 0).all()), "a logit without a gradient"
    assert bool((gradient[relaxation.absent_HK] == 0).all())
    for h in range(0, len(gradient), max(2, len(gradient) // 5)):
        with torch.no_grad():
            relaxation.logits_HK[h, 0] += 1e-5
            up = loss()
            relaxation.logits_HK[h, 0] -= 2e-5
            down = loss()
            relaxation.logits_HK[h, 0] += 1e-5
        torch.testing.assert_close(gradient[h, 0], (up - down) / 2e-5, rtol=1e-4, atol=1e-7)


def test_sampled_gradient_has_its_closed_form() -> None:
    """ops 1 and 0.5, loss (y - 1)^2: dL/da_j = 2 (y - 1) v_k g_k (1[j = k] - g_j) / tau for the drawn k."""
    from dnas.space.spec import Decision

    relaxation = Relaxation({"op": Decision("op", ("one", "half"))})
    drawing = estimator("sampled", relaxation)
    values, tau = torch.tensor([1.0, 0.5]), 0.7
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        gumbel = -(-torch.rand(1, 2, generator=generator).log()).log()
        drawing.draws = relaxation.draws_for(gumbel[None], tau)
        drawing.use(0, gradient=True)
        assert relaxation.draw.index is not None
        k = relaxation.draw.index["op"]
        y = relaxation.draw.weights["op"][k] * values[k]
        assert float(y.detach()) == float(values[k])
        relaxation.logits_HK.grad = None
        ((y - 1) ** 2).backward()
        g = ((relaxation.logits_HK.detach() + gumbel) / tau).softmax(1)[0]
        onehot = torch.eye(2)[k]
        expected = 2 * (values[k] - 1) * values[k] * g[k] * (onehot - g) / tau
        assert relaxation.logits_HK.grad is not None
        torch.testing.assert_close(relaxation.logits_HK.grad[0], expected)


def test_draw_frequencies_follow_the_softmax() -> None:
    from dnas.space.spec import Decision

    relaxation = Relaxation({"a": Decision("a", ("x", "y", "z")), "b": Decision("b", (1, 2), "width")})
    with torch.no_grad():
        relaxation.logits_HK[0] = torch.tensor([0.5, -0.5, 1.0])
    generator, counts = torch.Generator().manual_seed(1), torch.zeros(3)
    for _ in range(6000):
        sample("sampled", relaxation, generator, gradient=False)
        assert relaxation.draw.index is not None
        counts[relaxation.draw.index["a"]] += 1
        assert relaxation.draw.index["b"] < 2
    torch.testing.assert_close(counts / 6000, relaxation.probabilities()["a"], atol=0.025, rtol=0)
