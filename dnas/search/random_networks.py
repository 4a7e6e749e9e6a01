"""Random networks of a space: what a found one is held against, what a prior is scored on."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping

from dnas.errors import UserError
from dnas.space.cost import Count
from dnas.space.spec import Choices, Decision

WINDOW = 0.07
"""Random networks of a cost cost as much, or less by this share at most."""
TRIES = 20_000
"""Networks that are drawn before those of a cost are called rare."""
SETTLE, SWEEPS, IDLE = 100, 4, 500
"""Sweeps of a walk before its first network; of which it shows one, if it is inside; outside, before it is given up."""
SCALE, WIDER, NARROWER = 0.05, 1.2, 0.95
"""Share of the cost over which a weight falls to 1/e, at first; its factors: a fifth of the sweeps ends inside."""
REPEATS = 10
"""Networks of a walk for every one that is asked for, where none is wanted twice."""

Index = dict[str, int]
"""Decision -> the number of its option."""


class TooRareError(UserError):
    """There are hardly any networks of a cost."""


def cost_window(cost: float | None) -> tuple[float, float]:
    """Of networks that cost so much; of any cost."""
    return (0.0, math.inf) if cost is None else ((1 - WINDOW) * cost, cost)


def random_networks(
    decisions: Mapping[str, Decision],
    number: int,
    seed: int,
    cost: Count | None = None,
    window: tuple[float, float] = (0.0, float("inf")),
    different: bool = True,
    fewest: int | None = None,
) -> list[Choices]:
    """Networks, uniform over those whose cost is in the window: by rejection, and where they are rare by a `walk`.

    Args:
        different: none twice.
        fewest: so many are enough where there are not `number` (none: they are not).

    Raises:
        TooRareError: there are hardly any networks of such a cost.
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
    rare = cost is not None and window != cost_window(None)
    if len(found) < number and cost is not None and rare:
        take(itertools.islice(walk(decisions, rng, cost, window), REPEATS * number))
    if len(found) < (number if fewest is None else fewest):
        walked = f" that cost {window[0]:,.0f} to {window[1]:,.0f}, and on a walk through such ones" if rare else ""
        raise TooRareError(
            f"networks: found {len(found)} different ones among {TRIES:,} random ones{walked}, asked for {number}"
        )
    return [{key: decisions[key].options[k] for key, k in index.items()} for index in found]


def _anywhere(decisions: Mapping[str, Decision], rng: random.Random) -> Index:
    return {key: rng.randrange(len(decision.options)) for key, decision in decisions.items()}


def walk(
    decisions: Mapping[str, Decision], rng: random.Random, cost: Count, window: tuple[float, float]
) -> Iterator[Index]:
    """Networks of the window, however rare they are: uniform over them in the long run.

    Gibbs sampling (Geman and Geman, 1984): one decision after the other takes an option anew. A network weighs one
    inside the window, and exponentially less the farther it is outside, so that the walk leaves the window and comes
    back elsewhere: single steps inside hardly get anywhere where it is narrow. How soon the weight falls is settled in
    the first sweeps, by how often they end inside. Ends after `IDLE` sweeps outside.
    """
    index, scale = _anywhere(decisions, rng), SCALE * (window[1] if window[1] < math.inf else window[0]) or 1.0
    idle = 0
    for sweep in itertools.count():
        for key in rng.sample(list(decisions), len(decisions)):
            costs = cost.switched(index, key).get(key, [0] * len(decisions[key].options))  # which does not depend on it
            off = [max(window[0] - int(one), int(one) - window[1], 0) for one in costs]
            weights = [math.exp((min(off) - one) / scale) for one in off]
            index[key] = rng.choices(range(len(off)), weights)[0]
        inside = window[0] <= cost.at(index) <= window[1]
        idle = 0 if inside else idle + 1
        if sweep < SETTLE:
            scale *= WIDER if inside else NARROWER
        elif inside and sweep % SWEEPS == 0:
            yield dict(index)
        if idle > IDLE:
            return
