"""Options that share weights: which may, and that each is the centre and the leading channels of the largest."""

import pytest
import torch

from dnas.nn.chain import Skip
from dnas.nn.inverted_residual import InvertedResidual
from dnas.nn.vit import TransformerStage
from dnas.search.elastic import SharedInvertedResidual, can_share
from dnas.search.relaxation import Relaxation
from dnas.search.shared_blocks import SharedTransformerStage, can_share_blocks
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


def test_selection_shares_the_blocks_of_a_transformer_stage() -> None:
    """Half the parameters of two stages; what one option trains, the other uses."""
    none, select = TransformerStage(0, 1, 2), TransformerStage(0, 1, 2, select=True, kind="selective")
    assert can_share_blocks({"none": none, "selective": select})
    assert not can_share_blocks({"none": none, "other": TransformerStage(0, 2, 2, select=True)})
    assert not can_share_blocks({"dcs": TransformerStage(0, 1, 2, select=True), "selective": select})
    assert not can_share_blocks({"none": Skip(), "selective": select})
    relaxation = Relaxation({"op": Decision("op", ("none", "selective"))})
    shape = Shape(Channels.of(8), 5, 1)
    module = OneOf("op", {"none": none, "selective": select}).build(shape, SupernetBuilder(relaxation.draw))
    assert isinstance(module, SharedTransformerStage)
    assert sum(p.numel() for p in module.parameters()) == select.cost(shape).params.value
    block = module.encoder["layers"]["encoder_layer_0"]  # type: ignore[index]
    with torch.no_grad():
        block.select.logits.bias.copy_(torch.tensor([1.0, -1.0] * 4))
    x, found = torch.randn(2, 8, 5, 1), {}
    for option in ("none", "selective"):
        module.zero_grad()
        relaxation.fix({"op": option})
        y = found[option] = module.train()(x)
        y.square().sum().backward()
        assert bool(block.self_attention.in_proj_weight.grad.any())
        assert (block.select.logits.bias.grad is not None) == (option == "selective")
    assert not torch.allclose(found["none"], found["selective"])
