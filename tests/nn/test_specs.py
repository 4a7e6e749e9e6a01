"""One contract for every operation: shape, gradients, counted cost == measured cost, same function at the start."""

from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dnas.nn.attention import ATTENTION
from dnas.nn.backbones import BACKBONES, backbone
from dnas.nn.builder import PlainBuilder
from dnas.nn.cbam_spatial import CBAMSpatial
from dnas.nn.cell_operations import HalfThen, NormConv, Pool, SeparableConv, Zero
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.dense_cell import DenseCell, NormReLU, ResidualReduction
from dnas.nn.inverted_residual import InvertedResidual
from dnas.nn.patch_cell import PatchCell
from dnas.nn.selective_attention import SelectiveAttention
from dnas.space.cost import Cost
from dnas.space.holes import Channels, Shape
from dnas.space.spec import OneOf, Space, Spec, fill, image
from search_spaces.cells_reid import cells_reid
from tests.spaces import ALL, random_choices

CELLS = cells_reid("cells", (6,), "NR", 12, 16, 24)
CELL_CHOICES = {
    key: "dcs" if choice == "se" else choice  # two images can leave a squeeze of few channels without a gradient
    for key, choice in random_choices(CELLS, 3).items()
}
KINDS: tuple[Literal["max", "avg"], ...] = ("max", "avg")
INPUT = Shape(Channels.of(12), 9, 6)
SPECS: dict[str, tuple[Spec, Shape]] = {
    "conv": (ConvNormAct(8, 3, 2), INPUT),
    "conv 1x1": (ConvNormAct(8, 1), INPUT),
    "inverted residual": (InvertedResidual(12, 5, 3, residual=True), INPUT),
    "inverted residual s2": (InvertedResidual(16, 3, 6, stride=2), INPUT),
    "inverted residual e1": (InvertedResidual(16, 3, 1), INPUT),
    "norm conv": (NormConv(8), INPUT),
    "norm conv s2": (NormConv(stride=2), INPUT),
    "norm conv 3x3": (NormConv(8, 2, 3), INPUT),
    "pool alone": (Pool("avg", norm=False), INPUT),
    "dense cell": (
        DenseCell(
            (
                (NormConv(),),
                (
                    Zero(),
                    Pool("max"),
                ),
                (Skip(), Zero(), NormConv(kernel=3)),
            )
        ),
        INPUT,
    ),
    "residual reduction": (ResidualReduction(16), INPUT),
    "norm relu": (NormReLU(), INPUT),
    "separable": (SeparableConv(5), INPUT),
    "separable s2": (SeparableConv(3, 2), INPUT),
    "dilated": (SeparableConv(3, dilation=2, times=1), INPUT),
    "dilated s2": (SeparableConv(5, 2, dilation=2, times=1), INPUT),
    **{f"{kind} pool s{stride}": (Pool(kind, stride), INPUT) for kind in KINDS for stride in (1, 2)},
    "halved attention": (HalfThen(DCSAttention()), INPUT),
    "cells": (fill(CELLS.spec, CELL_CHOICES), CELLS.input),
    "dcs stride 2": (DCSAttention(stride=2), INPUT),
    "chain": (Chain((ConvNormAct(8, 3, 2), Skip(), DCSAttention())), INPUT),
    **{f"attention {name}": (spec, INPUT) for name, spec in ATTENTION.items()},
    **{f"backbone {name}": (backbone(name, 0.25), image(48, 32)) for name in BACKBONES if name != "osnet_x0_25"},
    "backbone osnet_x0_25": (backbone("osnet_x0_25", 4.0), image(48, 32)),
    "small osnet": (backbone("osnet_x1_0", 0.5, small=True), image(24, 16)),
    "small swin": (backbone("swin_t", 0.34, small=True), image(30, 22)),
    "selective stride 2": (SelectiveAttention(stride=2), INPUT),
    "cell on patches": (PatchCell(CBAMSpatial()), Shape(Channels.of(12), 13, 1, (4, 3))),
    **{
        f"vit with {name}": (
            backbone("vit_tiny_16", 0.25, small=True, attention=lambda stage, s=spec: s),
            image(24, 16),
        )
        for name, spec in ATTENTION.items()
    },
    "overlapping vit": (backbone("vit_tiny_16", 0.25, stride=12), image(50, 33)),
    "small resnet18": (backbone("resnet18", 0.25, small=True), image(24, 16)),
    "small mobilenet": (backbone("mobilenet_v2", 0.25, small=True), image(24, 16)),
}


@pytest.mark.parametrize("name", SPECS)
def test_contract(name: str) -> None:
    spec, x = SPECS[name]
    module = spec.build(x, PlainBuilder())
    images = torch.randn(2, x.channels.size, x.height, x.width)
    y = spec.out(x)
    assert module(images).shape == (2, y.channels.size, y.height, y.width)
    cost = spec.cost(x)
    assert cost.params.value == sum(p.numel() for p in module.parameters())
    module.eval()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(images)
    assert 2 * 2 * cost.macs.value == counter.get_total_flops()  # two images, two operations each
    module.train()
    for parameter in module.parameters():  # zero gains would block what is behind them
        nn.init.normal_(parameter, std=0.5)
    module(images.requires_grad_()).square().sum().backward()
    assert bool(images.grad.any())
    silent = [n for n, p in module.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not silent


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_changes_nothing_at_the_start(name: str) -> None:
    module = ATTENTION[name].build(INPUT, PlainBuilder())
    x = torch.randn(2, 12, 9, 6)
    for training in (False, True):
        y = module.train(training)(x).detach()
        if name in ("selective", "unselective"):  # alive from the first step: a little of the branch is let through
            assert 0 < float((y - x).std() / x.std()) < 0.15
        else:
            torch.testing.assert_close(y, x, rtol=0, atol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_zero_is_no_edge(stride: int) -> None:
    x = torch.full((2, 12, 9, 6), torch.inf)
    spec = Zero(stride)
    y = spec.build(INPUT, PlainBuilder())(x)
    out = spec.out(INPUT)
    assert y.shape == (2, 12, out.height, out.width)
    assert not bool(y.any())
    assert spec.cost(INPUT).macs.tables == {}


@pytest.mark.parametrize("size", [(2, 24), (24, 2), (3, 5)])
def test_cells_on_maps_that_stop_halving(size: tuple[int, int]) -> None:
    space = CELLS.resized(*size)
    spec = fill(space.spec, CELL_CHOICES)
    y = spec.out(space.input)
    module = spec.build(space.input, PlainBuilder()).eval()
    assert module(torch.randn(1, 3, *size)).shape == (1, y.channels.size, y.height, y.width)


def test_an_open_choice_inside_a_halved_operation() -> None:
    halved = HalfThen(OneOf("which", {"none": Skip(), "dcs": DCSAttention(), "chain": Chain((Skip(), DCSAttention()))}))
    leaves = list(halved.leaves(INPUT))
    assert all(leaf.conditions for leaf in leaves)
    assert sum((leaf.cost for leaf in leaves), Cost()).macs.at({"which": 1}) == halved.cost(INPUT).macs.at({"which": 1})
    for option in halved.operation.options:  # type: ignore[attr-defined]
        closed = fill(halved, {"which": option})
        assert sum(leaf.cost.macs.value for leaf in closed.leaves(INPUT)) == closed.cost(INPUT).macs.value


@pytest.mark.parametrize("space", ALL, ids=lambda s: s.name)
def test_random_genotypes_cost_what_is_measured(space: Space) -> None:
    for seed in range(3):
        spec = fill(space.spec, random_choices(space, seed))
        network = spec.build(space.input, PlainBuilder()).eval()
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network(torch.randn(1, 3, space.height, space.width))
        cost = spec.cost(space.input)
        assert 2 * cost.macs.value == counter.get_total_flops()
        assert cost.params.value == sum(p.numel() for p in network.parameters())
