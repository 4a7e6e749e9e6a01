"""Random networks of a space: what a found one is held against, what a prior is scored on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice

from dnas.errors import UserError
from dnas.space.cost import Count
from dnas.space.spec import Choices, Decision

TRIES = 20_000
"""Networks that are drawn before those of a cost are called rare."""
SWEEPS = 10
"""Of a walk, for every network that is asked for."""
SETTLE = 5
"""Sweeps of a walk before its first network."""

Index = dict[str, int]
"""Decision -> the number of its option."""


def random_networks(
    decisions: Mapping[str, Decision],
    number: int,
    seed: int,
    cost: Count | None = None,
    window: tuple[float, float] = (0.0, float("inf")),
    different: bool = True,
) -> list[Choices]:
    """Networks, uniform over those whose cost is in the window: by rejection, and where they are rare by a `walk`.

    Args:
        different: none twice.

    Raises:
        UserError: there are hardly any networks of such a cost.
    """
    found: list[Index] = []

    def take(indices: Iterator[Index]) -> None:
        for index in indices:
            if len(found) == number:
                break
            if not different or index not in found:
                found.append(index)

    rng = random.Random(seed)
    drawn = (_anywhere(decisions, rng) for _ in range(TRIES))
    take(index for index in drawn if cost is None or window[0] <= cost.at(index) <= window[1])
    if len(found) < number and cost is not None:
        take(islice(walk(decisions, rng, cost, window), SWEEPS * number))
    if len(found) < number:
        raise UserError(
            f"networks: found {len(found)} different ones among {TRIES:,} random ones that cost {window[0]:,.0f} to"
            f" {window[1]:,.0f}, and on a walk through such ones, asked for {number}"
        )
    return [{key: decisions[key].options[k] for key, k in index.items()} for index in found]


def _anywhere(decisions: Mapping[str, Decision], rng: random.Random) -> Index:
    return {key: rng.randrange(len(decision.options)) for key, decision in decisions.items()}


def walk(
    decisions: Mapping[str, Decision], rng: random.Random, cost: Count, window: tuple[float, float]
) -> Iterator[Index]:
    """Networks of the window, however rare: one decision after the other takes an option that stays inside, at random.

    This is Gibbs sampling (Geman and Geman, 1984) of the uniform distribution over those networks of the window that
    such steps lead to; a network follows a sweep through all decisions, so neighbours in the walk are alike. From
    outside the steps lead to the nearest cost. Ends where they lead to no network of the window.
    """
    index, keys = _anywhere(decisions, rng), list(decisions)
    sweeps = 0
    while True:
        for key in rng.sample(keys, len(keys)):
            costs = [cost.at({**index, key: k}) for k in range(len(decisions[key].options))]
            off = [max(window[0] - one, one - window[1], 0) for one in costs]
            index[key] = rng.choice([k for k, one in enumerate(off) if one == min(off)])
        inside = window[0] <= cost.at(index) <= window[1]
        sweeps += 1
        if inside and sweeps > SETTLE:
            yield dict(index)
        elif not inside and sweeps > 2 * SETTLE:
            return
