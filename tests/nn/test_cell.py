"""Dead parts of stacked cells: neither built nor counted, and nothing that is built is left without a gradient."""

import itertools
import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from dnas.nn.builder import PlainBuilder
from dnas.nn.cell import Cell, CellStack, Node
from dnas.nn.cell_operations import NormConv, SeparableConv, Zero
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.nn.reid_net import ReIDNet
from dnas.search.derive import derive, smallest
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder, inherit
from dnas.space.cost import Count
from dnas.space.graph import graph
from dnas.space.spec import Choices, OneOf, Pair, Space, Spec, decisions, fill
from search_spaces import SPACES


def cell(name: str, stride: int) -> Cell:
    """Two nodes: the first on both inputs, the second on two of three states."""

    def edge(node: int, state: int) -> OneOf:
        own = stride if state < 2 else 1
        inner = OneOf(f"{name}.{node}{state}.inner", {"zero": Zero(own), "conv": NormConv(stride=own)})
        options: dict[str, Spec] = {"zero": Zero(own), "sep": SeparableConv(3, own), "inner": inner}
        return OneOf(f"{name}.{node}{state}", options)

    pairs = {f"{a}+{b}": Pair((a, b)) for a, b in itertools.combinations(range(3), 2)}
    inputs = OneOf(f"{name}.inputs", pairs)
    return Cell((Node(Pair((0, 1)), (edge(2, 0), edge(2, 1))), Node(inputs, tuple(edge(3, s) for s in range(3)))))


STACK = CellStack(cell("n", 1), cell("r", 2), "NRNNRN", 4)
SPACE = Space("small cells", Chain((ConvNormAct(6, 3, 2), STACK, ConvNormAct(8, 1))), 19, 11)
KNOWN = decisions(SPACE.spec)


@cache
def points() -> list[dict[str, object]]:
    """Random genotypes with many zeros: most have dead parts."""
    rng = random.Random(0)
    return [
        {key: rng.choice(d.options) if rng.random() < 0.5 else d.options[0] for key, d in KNOWN.items()}
        for _ in range(60)
    ]


def live(choices: Choices) -> tuple[set[int], dict[str, set[int]]]:
    """Cells that reach the output and the inputs that each kind takes, by plain search."""
    takes: dict[str, set[int]] = {}
    for name in "nr":

        def there(edge: str, name: str = name) -> bool:
            option = choices[f"{name}.{edge}"]
            return option == "sep" or (option == "inner" and choices[f"{name}.{edge}.inner"] == "conv")

        picked = {int(s) for s in str(choices[f"{name}.inputs"]).split("+")}
        takes[name] = {s for s in (0, 1) if there(f"2{s}") or (s in picked and there(f"3{s}"))}
    found, waiting = set(), [len(STACK.plan) - 1]
    while waiting:
        k = waiting.pop()
        if k >= 0 and k not in found:
            found.add(k)
            waiting += [k - 2 + s for s in takes[STACK.plan[k].lower()]]
    return found, takes


def test_dead_parts_are_not_there() -> None:
    """Built are the live cells and the fits of the inputs they take; every parameter built gets a gradient."""
    seen = set()
    for choices in points():
        spec = fill(SPACE.spec, choices)
        network = spec.build(SPACE.input, PlainBuilder())
        cells = network[1].cells
        found, takes = live(choices)
        assert {int(k) for k in cells} == found
        for k, module in cells.items():
            assert {int(s) for s in module.fits} == takes[STACK.plan[int(k)].lower()]
        seen.add((len(found), *map(len, takes.values())))
        cost = spec.cost(SPACE.input)
        assert cost.params.value == sum(p.numel() for p in network.parameters())
        y = network(torch.randn(2, 3, 19, 11))
        out = spec.out(SPACE.input)
        assert y.shape == (2, out.channels.size, out.height, out.width)
        y.square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []
        drawn = graph(spec, SPACE.input).nodes(data=True)
        assert sum(node.get("params", 0) for _, node in drawn) == cost.params.value
    assert len(seen) > 8


def test_the_open_cost_is_the_counted_one() -> None:
    cost = SPACE.spec.cost(SPACE.input)
    relaxation = Relaxation(KNOWN).double()
    for choices in points():
        counted = fill(SPACE.spec, choices).cost(SPACE.input)
        index = {key: d.index(choices[key]) for key, d in KNOWN.items()}  # type: ignore[arg-type]
        relaxation.fix(choices)  # type: ignore[arg-type]
        for found, expected in ((cost.macs, counted.macs.value), (cost.params, counted.params.value)):
            assert found.at(index) == expected
            assert float(found.expected(relaxation.draw.weights)) == expected
        leaves = sum((leaf.cost for leaf in SPACE.spec.leaves(SPACE.input)), type(cost)())
        assert leaves.params.at(index) == counted.params.value


def few() -> Space:
    """Few networks, so that all can be tried: zero or not on every edge of one kind, on two of the other's."""

    def edge(key: str, stride: int) -> OneOf:
        return OneOf(key, {"zero": Zero(stride), "conv": NormConv(stride=stride)})

    pairs = {f"{a}+{b}": Pair((a, b)) for a, b in itertools.combinations(range(3), 2)}
    second = Node(OneOf("n.inputs", pairs), tuple(edge(f"n.3{s}", 1) for s in range(3)))
    normal = Cell((Node(Pair((0, 1)), (edge("n.20", 1), edge("n.21", 1))), second))
    fixed = Node(Pair((1, 2)), (Skip(), Zero(2), SeparableConv(3)))
    reduction = Cell((Node(Pair((0, 1)), (edge("r.20", 2), edge("r.21", 2))), fixed))
    return Space(
        "few", Chain((ConvNormAct(6, 3, 2), CellStack(normal, reduction, "NRNN", 4), ConvNormAct(8, 1))), 19, 11
    )


def networks(space: Space) -> list[dict[str, int]]:
    known = decisions(space.spec)
    return [
        dict(zip(known, at, strict=True)) for at in itertools.product(*(range(len(d.options)) for d in known.values()))
    ]


def test_the_expected_cost_is_the_mean_over_all_networks() -> None:
    space = few()
    relaxation = Relaxation(decisions(space.spec)).double()
    nn.init.normal_(relaxation.logits_HK)
    cost, p = space.spec.cost(space.input).macs, relaxation.distribution()
    mean = torch.zeros((), dtype=torch.float64)
    for at in networks(space):
        mean = mean + cost.at(at) * torch.stack([p[key][k] for key, k in at.items()]).prod()
    found = cost.expected(p)
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(found, relaxation.logits_HK, retain_graph=True)
    (expected,) = torch.autograd.grad(mean, relaxation.logits_HK)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-6)


def test_the_cost_of_one_other_choice() -> None:
    space = few()
    known, cost = decisions(space.spec), space.spec.cost(space.input).macs
    for at in networks(space)[::7]:
        every = cost.switched(at)
        for key, counts in every.items():
            assert cost.switched(at, key)[key].tolist() == counts.tolist()
            assert counts.tolist() == [cost.at({**at, key: k}) for k in range(len(known[key].options))]


def test_deriving_knows_what_is_dead() -> None:
    """The best within the budget among all networks: under small budgets one with dead parts."""
    space = few()
    known, cost = decisions(space.spec), space.spec.cost(space.input).macs
    every = [(cost.at(at), at) for at in networks(space)]
    least, most = min(macs for macs, _ in every), max(macs for macs, _ in every)
    assert smallest(known, cost) == least
    won_dead = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scores = {key: rng.normal(size=len(d.options)).tolist() for key, d in known.items()}
        for budget in (least, least + 0.2 * (most - least), least + 0.5 * (most - least)):
            best = max(sum(scores[k][n] for k, n in at.items()) for macs, at in every if macs <= budget)
            chosen = {key: known[key].index(choice) for key, choice in derive(known, scores, cost, budget).items()}
            assert cost.at(chosen) <= budget
            assert sum(scores[k][n] for k, n in chosen.items()) == pytest.approx(best, abs=1e-12)
            won_dead += cost.at(chosen) < Count(cost.tables).at(chosen)
    assert won_dead > 1


@pytest.mark.parametrize("training", [False, True])
def test_a_supernet_is_its_child_with_dead_parts(training: bool) -> None:
    relaxation = Relaxation(KNOWN)
    net = ReIDNet(SPACE.spec, SPACE.input, 5, SupernetBuilder(relaxation.draw)).double().train(training)
    x = torch.randn(3, 3, 19, 11, dtype=torch.float64)
    for choices in points()[:12]:
        child = ReIDNet(fill(SPACE.spec, choices), SPACE.input, 5).double().train(training)
        inherit(child, net, choices)  # type: ignore[arg-type]
        relaxation.fix(choices)  # type: ignore[arg-type]
        torch.testing.assert_close(net(x), child(x), rtol=0, atol=1e-10)


def test_the_share_of_shipped_genotypes_with_dead_parts() -> None:
    space = SPACES["cells_reid"]
    cost, rng = space.spec.cost(space.input).params, np.random.default_rng(0)
    sizes = {key: len(decision.options) for key, decision in decisions(space.spec).items()}
    drawn = [{key: int(rng.integers(size)) for key, size in sizes.items()} for _ in range(2000)]
    dead = sum(cost.at(at) < Count(cost.tables).at(at) for at in drawn) / len(drawn)
    assert 0.03 < dead < 0.07
