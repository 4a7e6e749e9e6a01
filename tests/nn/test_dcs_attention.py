"""DCS-Attention against its formula, and what its selection must do."""

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from dnas.nn.builder import PlainBuilder
from dnas.nn.dcs_attention import DCSAttention, DCSAttentionModule
from dnas.nn.non_local import NonLocal
from dnas.space.holes import Channels, Shape

X = Shape(Channels.of(6), 4, 3)


def module(spec: DCSAttention | None = None) -> DCSAttentionModule:
    built = (spec or DCSAttention()).build(X, PlainBuilder())
    assert isinstance(built, DCSAttentionModule)
    return built.double()


def test_equals_the_formula() -> None:
    for scaled in (True, False):
        dcs = module(DCSAttention(scaled=scaled)).eval()
        for parameter in dcs.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
        for image, found in zip(x, dcs(x), strict=True):
            tokens = image.reshape(6, 12).T
            theta = tokens @ dcs.select.logits.weight.T + dcs.select.logits.bias
            chosen = tokens * (theta > 0)
            affinity = chosen @ chosen.T / (6**0.5 if scaled else 1.0)
            y = (affinity.softmax(1) @ tokens).T.reshape(6, 4, 3)
            y = y / (1 + dcs.norm.eps) ** 0.5 * dcs.norm.weight[:, None, None] + dcs.norm.bias[:, None, None]
            torch.testing.assert_close(found, image + y)


def test_inference_is_deterministic_and_training_is_not() -> None:
    dcs = module()
    nn.init.ones_(dcs.norm.weight)
    nn.init.zeros_(dcs.select.logits.bias)
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    assert torch.equal(dcs.eval()(x), dcs(x))
    assert not torch.equal(dcs.train()(x), dcs(x))


def test_training_and_inference_masks_differ_with_probability_sigmoid_minus_abs_theta() -> None:
    dcs = module()
    x = torch.zeros(2000, 12, 6, dtype=torch.float64)
    for theta in (-2.0, 0.5, 4.0):
        nn.init.constant_(dcs.select.logits.bias, theta)
        for temperature in (0.1, 3.0):
            dcs.select.temperature = temperature
            differ = (dcs.train().select(x) != dcs.eval().select(x)).double().mean()
            expected = torch.tensor(-abs(theta), dtype=torch.float64).sigmoid()
            torch.testing.assert_close(differ, expected, atol=0.01, rtol=0)


def test_straight_through_gradient_is_that_of_the_soft_mask(monkeypatch: object) -> None:
    dcs = module().train()
    dcs.select.temperature = 0.7
    noise = torch.randn(2, 12, 6, dtype=torch.float64)
    dcs.select.noise = lambda like: noise  # type: ignore[method-assign]
    x, weight = torch.randn(2, 12, 6, dtype=torch.float64), torch.randn(2, 12, 6, dtype=torch.float64)
    mask = dcs.select(x)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    (mask * weight).sum().backward()
    hard = dcs.select.logits.bias.grad
    dcs.select.logits.bias.grad = None
    (((dcs.select.logits(x) + noise) / 0.7).sigmoid() * weight).sum().backward()
    torch.testing.assert_close(hard, dcs.select.logits.bias.grad)


def test_everything_selected_equals_non_local() -> None:
    """At the start every channel is selected: in inference DCS is non-local attention."""
    for stride in (1, 2):
        dcs, non_local = module(DCSAttention(stride=stride)).eval(), NonLocal(stride=stride).build(X, PlainBuilder())
        non_local.double().eval()
        for norm in (dcs.norm, non_local.norm):
            nn.init.ones_(norm.weight)
        x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
        torch.testing.assert_close(dcs(x), non_local(x), rtol=0, atol=1e-12)
        assert not torch.equal(dcs(x), x)


def test_memory_is_linear_in_tokens() -> None:
    """8,192 tokens: the 8,192 x 8,192 affinity (268 MB in float32) is never held."""
    shape = Shape(Channels.of(16), 128, 64)
    dcs = DCSAttention().build(shape, PlainBuilder())
    x = torch.randn(1, 16, 128, 64, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as memory:
        dcs(x).sum().backward()
    largest = max(event.cpu_memory_usage for event in memory.events())
    assert largest < 40e6
