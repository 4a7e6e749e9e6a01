"""Options that share weights: which may, and that each is the centre and the leading channels of the largest."""

import pytest
import torch

from dnas.nn.chain import Skip
from dnas.nn.inverted_residual import InvertedResidual
from dnas.search.elastic import SharedInvertedResidual, can_share
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import Mixed, SupernetBuilder
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Decision, OneOf, Spec

X = Shape(Channels.of(4), 6, 5)
OPTIONS = {"k3e2": InvertedResidual(4, 3, 2), "k5e4": InvertedResidual(4, 5, 4), "k7e3": InvertedResidual(4, 7, 3)}


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (InvertedResidual(4, 5, 6), True),
        (InvertedResidual(4, 5, 1), False),  # has no expansion
        (InvertedResidual(4, 5, 6, stride=2), False),
        (InvertedResidual(8, 5, 6), False),
        (InvertedResidual(4, 5, 6, residual=True), False),
        (Skip(), False),
    ],
)
def test_which_options_share(other: Spec, shared: bool) -> None:
    assert can_share({**OPTIONS, "other": other}) == shared


def test_one_draw_trains_what_the_others_use() -> None:
    """The gradient of the smallest option reaches the centre of the kernels and the leading channels, no more."""
    relaxation = Relaxation({"op": Decision("op", tuple(OPTIONS))})
    module = OneOf("op", OPTIONS).build(X, SupernetBuilder(relaxation.draw))
    assert isinstance(module, SharedInvertedResidual)
    assert tuple(module.depthwise.weight.shape) == (16, 1, 7, 7)
    relaxation.fix({"op": "k3e2"})
    module(torch.randn(3, 4, 6, 5)).square().sum().backward()
    gradient = module.depthwise.weight.grad
    assert gradient is not None
    assert bool(gradient[:8, :, 2:5, 2:5].any())
    gradient[:8, :, 2:5, 2:5] = 0
    assert not bool(gradient.any())
    apart = OneOf("op", OPTIONS).build(X, SupernetBuilder(relaxation.draw, share=False))
    assert isinstance(apart, Mixed)
