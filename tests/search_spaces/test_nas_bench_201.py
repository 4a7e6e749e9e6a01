"""The benchmark's space: its names of cells, its counts, and cells with dead parts."""

import itertools

import pytest
import torch

from dnas.errors import UserError
from dnas.nn.builder import PlainBuilder
from dnas.nn.cell_operations import NormConv
from dnas.nn.dense_cell import DenseCell
from dnas.space.graph import graph, part
from dnas.space.holes import Channels, Shape
from dnas.space.spec import OneOf, decisions, fill
from search_spaces import SPACES
from search_spaces.nas_bench_201 import NODES, OPERATIONS, cell_string, edge_key, read_cell
from tests.spaces import random_choices

SPACE = SPACES["nas_bench_201"]


def test_names_of_cells() -> None:
    name = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    choices = read_cell(name)
    assert choices["cell.node2.from1"] == "avg_pool_3x3"
    assert choices["cell.node3.from2"] == "skip_connect"
    assert set(choices) == set(decisions(SPACE.spec))
    for seed in range(20):
        drawn = random_choices(SPACE, seed)
        assert read_cell(cell_string(drawn)) == drawn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found ''"),
        ("|none~0|+|none~0|none~1|", "allowed: names such as"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~1|", "allowed: names such as"),
        ("|none~0|+|none~0|none~1|+|none~0|none~x|none~2|", "allowed: names such as"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|.", "allowed: names such as"),
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "found operation 'conv'"),
    ],
)
def test_bad_names_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match="cell: found") as error:
        read_cell(text)
    assert message in str(error.value)


def test_counts_are_the_benchmarks() -> None:
    """With its classifier: 1.531546 M parameters where every edge is a 3x3 convolution, as it publishes; 220.12 M."""
    cost = fill(SPACE.spec, dict.fromkeys(decisions(SPACE.spec), "nor_conv_3x3")).cost(SPACE.input)
    assert cost.params.value + 64 * 10 + 10 == 1_531_546
    assert (cost.macs.value + 64 * 10) / 1e6 == pytest.approx(220.12, abs=0.005)


def test_dead_parts_are_neither_built_nor_counted() -> None:
    """Against a search along the edges, for every way in which edges can be missing."""
    cell = DenseCell(
        tuple(tuple(OneOf(edge_key(s, node), OPERATIONS) for s in range(node)) for node in range(1, NODES + 1))
    )
    x = Shape(Channels.of(3), 4, 4)
    open_cost, known = cell.cost(x), decisions(cell)
    edges = [(s, node) for node in range(1, NODES + 1) for s in range(node)]
    for there in itertools.product((False, True), repeat=len(edges)):
        choices = {edge_key(*e): "nor_conv_1x1" if yes else "none" for e, yes in zip(edges, there, strict=True)}
        present = {edge for edge, yes in zip(edges, there, strict=True) if yes}
        live = {NODES}
        for node in range(NODES, 0, -1):
            live |= {s for s, end in present if end == node and node in live}
        expected = sum(end in live for _, end in present) * NormConv().cost(x).params.value
        closed = fill(cell, choices)
        assert sum(p.numel() for p in closed.build(x, PlainBuilder()).parameters()) == expected
        assert closed.cost(x).params.value == expected
        assert open_cost.params.at({key: known[key].index(choice) for key, choice in choices.items()}) == expected


def test_nested_choices_of_an_edge() -> None:
    inner = OneOf("inner", {"none": OPERATIONS["none"], "conv": NormConv()})
    cell = DenseCell(((NormConv(),), (OneOf("a", {"skip": OPERATIONS["skip_connect"], "more": inner}), inner)))
    x = Shape(Channels.of(3), 4, 4)
    for a, b in itertools.product(("skip", "more"), ("none", "conv")):
        numbers = {"a": ("skip", "more").index(a), "inner": ("none", "conv").index(b)}
        assert cell.cost(x).params.at(numbers) == fill(cell, {"a": a, "inner": b}).cost(x).params.value


def test_a_cell_without_edges_still_passes_a_gradient() -> None:
    spec = fill(SPACES["nas_bench_201_small"].spec, dict.fromkeys(decisions(SPACE.spec), "none"))
    net = spec.build(SPACES["nas_bench_201_small"].input, PlainBuilder())
    net(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_edges_keep_the_shape() -> None:
    with pytest.raises(UserError, match="edges must keep the shape 3 x 4 x 4, found conv 1x1: 8 x 4 x 4"):
        DenseCell(((NormConv(8),),)).out(Shape(Channels.of(3), 4, 4))
    with pytest.raises(ValueError, match="node number n has an edge from each of n states"):
        DenseCell(((NormConv(), NormConv()),))


def test_a_cell_is_drawn_with_its_live_parts() -> None:
    choices = read_cell("|nor_conv_1x1~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|")
    whole = graph(fill(SPACE.spec, choices), SPACE.input)
    cell = part(whole, "stage2 cell")
    titles = sorted(data["title"] for _, data in cell.nodes(data=True) if data["kind"] != "input")
    assert titles == ["conv 1x1", "conv 3x3", "node 1", "node 3"]  # node 2 leads nowhere; a skip is a line
    assert {data["count"] for _, data in cell.nodes(data=True) if data["kind"] != "input"} == {5}
