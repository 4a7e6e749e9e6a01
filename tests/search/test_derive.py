"""Deriving is exact: it equals trying every network."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from dnas.errors import UserError
from dnas.search.derive import derive, smallest
from dnas.space.cost import Count, Event
from dnas.space.holes import Channels, Width
from dnas.space.spec import Decision, Space, decisions
from tests.spaces import ALL


def brute_force(space: Space, scores: dict[str, list[float]], budget: float) -> tuple[float, int]:
    cost = space.spec.cost(space.input).macs
    keys = list(scores)
    best, least = -np.inf, 10**18
    for picked in itertools.product(*(range(len(scores[key])) for key in keys)):
        macs = cost.at(dict(zip(keys, picked, strict=True)))
        least = min(least, macs)
        if macs <= budget:
            best = max(best, sum(scores[key][k] for key, k in zip(keys, picked, strict=True)))
    return best, least


def small(space: Space) -> Space:
    """Two stages of tiny_reid: few enough networks to try them all."""
    from dnas.nn.chain import Chain

    assert isinstance(space.spec, Chain)
    return replace(space, spec=Chain(space.spec.parts[:3]))


@pytest.mark.slow
def test_derive_equals_brute_force() -> None:
    space = small(ALL[0])
    known = decisions(space.spec)
    cost = space.spec.cost(space.input).macs
    for seed in range(4):
        rng = np.random.default_rng(seed)
        scores = {key: rng.normal(size=len(d.options)).tolist() for key, d in known.items()}
        for budget in (7e5, 1e6, 1.6e6):
            best, least = brute_force(space, scores, budget)
            assert smallest(known, cost) == least
            if budget < least:
                with pytest.raises(UserError, match=f"{least:,}"):
                    derive(known, scores, cost, budget)
                continue
            choices = derive(known, scores, cost, budget)
            index = {key: known[key].index(choice) for key, choice in choices.items()}
            assert cost.at(index) <= budget
            assert sum(scores[key][k] for key, k in index.items()) == pytest.approx(best, abs=1e-12)


def test_events_that_exclude_each_other() -> None:
    """Two things cost nothing, each if one choice is so: never both. It was an IndexError."""
    known = {"a": Decision("a", ("x", "y", "z")), "b": Decision("b", ("x", "y"))}
    costs = Count({("a", "b"): np.array([[5, 9], [6, 3], [8, 4]])})
    spared = {
        frozenset({Event("first", {("a",): np.array([1, 0, 0])})}): Count.of(-2),
        frozenset({Event("second", {("a",): np.array([0, 0, 1])})}): Count.of(-3),
    }
    cost, rng = replace(costs, rare=spared), np.random.default_rng(0)
    networks = list(itertools.product(range(3), range(2)))
    for budget in (3, 4, 5, 7, 9):
        scores = {key: rng.normal(size=len(one.options)).tolist() for key, one in known.items()}
        inside = [(a, b) for a, b in networks if cost.at({"a": a, "b": b}) <= budget]
        best = max(scores["a"][a] + scores["b"][b] for a, b in inside)
        found = derive(known, scores, cost, budget)
        assert sum(scores[key][one.index(found[key])] for key, one in known.items()) == pytest.approx(best)


def test_without_a_budget_it_is_the_argmax() -> None:
    known = decisions(ALL[0].spec)
    rng = np.random.default_rng(0)
    scores = {key: rng.normal(size=len(d.options)).tolist() for key, d in known.items()}
    choices = derive(known, scores, ALL[0].spec.cost(ALL[0].input).macs, None)
    assert choices == {key: d.options[int(np.argmax(scores[key]))] for key, d in known.items()}


def test_widths_of_many_options() -> None:
    """More options than a byte can number; only the budget keeps from the last."""
    width = Width("w", tuple(range(1, 301)))
    known = decisions(width)
    scores, cost = {"w": [float(k) for k in range(300)]}, Count.of(Channels.of(width), 10)
    assert derive(known, scores, cost, None) == {"w": 300}
    assert derive(known, scores, cost, 2500) == {"w": 250}
