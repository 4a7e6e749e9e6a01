"""A cell on the patch tokens of a transformer: which token is which place, and what is refused."""

import pytest
import torch
from torch import nn

from dnas.errors import UserError
from dnas.nn.builder import PlainBuilder
from dnas.nn.cbam_spatial import CBAMSpatial
from dnas.nn.chain import Skip
from dnas.nn.patch_cell import PatchCell
from dnas.space.holes import Channels, Shape
from dnas.space.latency import operations
from dnas.space.spec import OneOf, fill

TOKENS = Shape(Channels.of(5), 1 + 4 * 3, 1, grid=(4, 3))


def test_tokens_are_places_row_by_row_and_the_class_token_stays() -> None:
    module = PatchCell(CBAMSpatial(3)).build(TOKENS, PlainBuilder())
    (weight,) = module.parameters()
    nn.init.normal_(weight)
    x, map_ = torch.randn(2, 5, 13, 1), torch.zeros(2, 5, 4, 3)
    for row in range(4):
        for col in range(3):
            map_[:, :, row, col] = x[:, :, 1 + row * 3 + col, 0]
    y, expected = module(x), module.cell(map_)
    assert torch.equal(y[:, :, 0], x[:, :, 0])
    for row in range(4):
        for col in range(3):
            torch.testing.assert_close(y[:, :, 1 + row * 3 + col, 0], expected[:, :, row, col])


def test_the_leaves_of_an_open_cell_cost_what_it_costs() -> None:
    opened = PatchCell(OneOf("which", {"none": Skip(), "cbam": CBAMSpatial()}))
    for k, option in enumerate(("none", "cbam")):
        closed = fill(opened, {"which": option})
        there = [leaf for leaf in opened.leaves(TOKENS) if leaf.there({"which": k})]
        assert [(leaf.spec, leaf.x) for leaf in there] == [(closed, TOKENS)]
        assert opened.cost(TOKENS).macs.at({"which": k}) == closed.cost(TOKENS).macs.value


def test_a_map_is_no_row_of_tokens() -> None:
    with pytest.raises(
        UserError, match="CBAM spatial k7 on patches: found a map of 5 x 13 x 1, allowed: the tokens of"
    ):
        PatchCell(CBAMSpatial()).cost(Shape(Channels.of(5), 13, 1))


def test_latencies_are_measured_on_the_grid_and_known_without_it() -> None:
    """What was measured of tokens before they had a grid is still found."""
    (operation,) = operations(PatchCell(CBAMSpatial()), TOKENS).values()
    spec, x = operation.at(operation.points()[0])
    assert spec.build(x, PlainBuilder())(torch.randn(1, 5, 13, 1)).shape == (1, 5, 13, 1)
    assert "grid" not in operation.name
