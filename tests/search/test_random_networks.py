"""Random networks of a cost: uniform where they are common, and found where they are rare."""

import random
from collections import Counter
from itertools import islice, product

import numpy as np
import pytest
from scipy.stats import chisquare

from dnas.errors import UserError
from dnas.search.random_networks import random_networks, walk
from dnas.space.cost import Count
from dnas.space.spec import Decision, decisions
from search_spaces import SPACES

KNOWN = {
    "a": Decision("a", ("x", "y", "z")),
    "b": Decision("b", (1, 2, 4), "width"),
    "c": Decision("c", ("x", "y")),
    "free": Decision("free", ("x", "y")),
}
COST = Count({("a", "b"): np.array([[1, 2, 4], [2, 4, 8], [3, 6, 12]]), ("c",): np.array([0, 3])})


@pytest.mark.slow
def test_a_walk_is_uniform_in_its_window() -> None:
    window = (3, 9)
    every = [dict(zip(KNOWN, ks, strict=True)) for ks in product(range(3), range(3), range(2), range(2))]
    inside = [tuple(one.values()) for one in every if window[0] <= COST.at(one) <= window[1]]
    met = Counter(tuple(one.values()) for one in islice(walk(KNOWN, random.Random(0), COST, window), 4000))
    assert set(met) == set(inside)
    assert chisquare([met[one] for one in inside]).pvalue > 0.001


@pytest.mark.slow
def test_networks_of_a_walk_are_no_more_alike_than_drawn_ones() -> None:
    space = SPACES["tiny_reid"]
    known, macs = decisions(space.spec), space.spec.cost(space.input).macs
    window = (13e6, 14e6)
    walks = [list(islice(walk(known, random.Random(n), macs, window), 150)) for n in range(2)]
    one, two = (np.array([list(index.values()) for index in walked]) for walked in walks)
    assert abs((one[1:] == one[:-1]).mean() - (one == two).mean()) < 0.06
    drawn = random_networks(known, 150, 0, macs, window)  # by rejection
    three = np.array([[known[key].index(option) for key, option in network.items()] for network in drawn])
    assert abs((one == three).mean() - (one == two).mean()) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("fbnetv2_reid_ops", 400e6), ("cells_reid", 105e6), ("tiny_reid", 12e6)])
def test_networks_of_a_rare_cost_are_found(name: str, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnas.search.random_networks.TRIES", 200)
    space = SPACES[name]
    known, macs = decisions(space.spec), space.spec.cost(space.input).macs
    found = random_networks(known, 5, 0, macs, (0.93 * limit, limit))
    costs = [macs.at({key: known[key].index(choice) for key, choice in one.items()}) for one in found]
    assert all(0.93 * limit <= cost <= limit for cost in costs)
    assert len({tuple(one.values()) for one in found}) == 5
    assert found == random_networks(known, 5, 0, macs, (0.93 * limit, limit))


def test_a_space_of_few_networks_has_those() -> None:
    """Whatever they cost, and where they cost nothing: nothing to walk towards, and nothing to divide by."""
    assert len(random_networks(KNOWN, 100, 0, COST, fewest=0)) == 36
    free = Count({("c",): np.array([0, 3])})
    assert len(random_networks(KNOWN, 100, 0, free, (0, 0), fewest=0)) == 18
    with pytest.raises(UserError, match="found 36 different ones among 20,000 random ones, asked for 37"):
        random_networks(KNOWN, 37, 0, COST)


def test_what_a_walk_does_not_reach_is_said() -> None:
    assert not list(islice(walk(KNOWN, random.Random(0), COST, (9.5, 10.5)), 5))
    with pytest.raises(
        UserError, match="found 6 different ones among 20,000 random ones that cost 4 to 4, and on a wa"
    ):
        random_networks(KNOWN, 7, 0, COST, (4, 4))
