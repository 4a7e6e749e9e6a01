"""From logits to a network: the choices of largest summed logits whose cost is within the budget.

Exact, by eliminating one decision after the other. What remains of the eliminated ones is, for every
setting of the decisions they share a cost table with, the Pareto front of (cost, score).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.space.cost import NOTHING, Count, Events
from dnas.space.spec import Choice, Decision


@dataclass(frozen=True)
class Front:
    """Partial networks none of which is both cheaper and better than another.

    cost (n,) ascending, score (n,) ascending, picked (n, H): option of each eliminated decision, else -1.
    """

    cost: NDArray[np.int64]
    score: NDArray[np.float64]
    picked: NDArray[np.int32]

    def pruned(self, limit: float) -> Front:
        order = np.lexsort((-self.score, self.cost))
        order = order[self.cost[order] <= limit]
        best = np.maximum.accumulate(self.score[order])
        keep = np.ones(len(order), bool)
        keep[1:] = best[1:] > best[:-1]
        order = order[keep]
        return Front(self.cost[order], self.score[order], self.picked[order])

    def plus(self, other: Front, limit: float) -> Front:
        """Every pair of partial networks, pruned."""
        pairs = Front(
            (self.cost[:, None] + other.cost).reshape(-1),
            (self.score[:, None] + other.score).reshape(-1),
            np.maximum(self.picked[:, None], other.picked).reshape(-1, self.picked.shape[1]),
        )
        return pairs.pruned(limit)

    @staticmethod
    def union(fronts: Iterable[Front], limit: float) -> Front:
        parts = list(fronts)
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("cost", "score", "picked"))
        return Front(*columns).pruned(limit)


Factor = tuple[tuple[str, ...], dict[tuple[int, ...], Front]]


def derive(
    decisions: Mapping[str, Decision],
    scores: Mapping[str, list[float]],
    cost: Count,
    budget: float | None,
    unit: str = "MACs",
) -> dict[str, Choice]:
    """The choices of largest summed score with `cost` at most `budget`.

    Raises:
        UserError: the budget is below the smallest cost there is.
    """
    limit = np.inf if budget is None else float(budget)
    picked: NDArray[np.int32] | None = None
    best, hopeless = -np.inf, set[Events]()
    for events in _sets(cost):
        if any(fewer <= events for fewer in hopeless):
            continue
        if events:
            score = _eliminate(decisions, scores, NOTHING, np.inf, events).score
            if not len(score) or score[-1] <= best:  # they exclude each other, or not even without a budget
                hopeless.add(events)
                continue
        front = _eliminate(decisions, scores, cost.given(events), limit, events)
        if len(front.cost) and front.score[-1] > best:
            picked, best = front.picked[-1], float(front.score[-1])
    if picked is None:
        least = smallest(decisions, cost)
        raise UserError(
            f"budget: {budget:,.0f} {unit} is impossible, the smallest network of this space has {least:,} {unit}"
        )
    return {key: decision.options[picked[h]] for h, (key, decision) in enumerate(decisions.items())}


def smallest(decisions: Mapping[str, Decision], cost: Count) -> int:
    """The smallest cost of any network of the space."""
    zero = {key: [0.0] * len(decision.options) for key, decision in decisions.items()}
    fronts = (_eliminate(decisions, zero, cost.given(events), np.inf, events) for events in _sets(cost))
    return min(int(front.cost[0]) for front in fronts if len(front.cost))


def _sets(cost: Count) -> Iterator[Events]:
    """Sets of events that a cost depends on: a network costs what it does in the largest of those that hold for it.

    In the others it costs no less, so the best over all sets is the best there is.
    """
    events = cost.events
    for size in range(len(events) + 1):
        yield from map(frozenset, itertools.combinations(events, size))


def _eliminate(
    decisions: Mapping[str, Decision],
    scores: Mapping[str, list[float]],
    cost: Count,
    limit: float,
    events: Events = frozenset(),
) -> Front:
    """The front of all networks in which the events are so."""
    keys = list(decisions)
    factors: list[Factor] = []
    for h, key in enumerate(keys):
        points: dict[tuple[int, ...], Front] = {}
        for k, score in enumerate(scores[key][: len(decisions[key].options)]):
            picked = np.full((1, len(keys)), -1, np.int32)
            picked[0, h] = k
            points[(k,)] = Front(np.zeros(1, np.int64), np.array([score]), picked)
        unary: tuple[str, ...] = (key,)
        factors.append((unary, points))
    nobody = np.full((1, len(keys)), -1, np.int32)
    for scope, table in cost.tables.items():
        points = {
            tuple(at): Front(np.array([table[at]], np.int64), np.zeros(1), nobody) for at in np.ndindex(table.shape)
        }
        factors.append((scope, points))
    here = Front(np.zeros(1, np.int64), np.zeros(1), nobody)
    never = Front(here.cost[:0], here.score[:0], nobody[:0])
    for scope, table in (part for event in events for part in event.parts.items()):
        factors.append((scope, {tuple(at): here if table[at] else never for at in np.ndindex(table.shape)}))
    sizes = {key: len(decision.options) for key, decision in decisions.items()}
    remaining = set(keys)
    while remaining:
        key = min(sorted(remaining), key=lambda k: _table_size(k, factors, sizes))
        touching = [factor for factor in factors if key in factor[0]]
        others = [factor for factor in factors if key not in factor[0]]
        # what the untouched factors cost at least is not available here
        slack = limit - sum(min(_least(front) for front in points.values()) for _, points in others)
        factors = [*others, _without(key, touching, sizes, slack)]
        remaining.discard(key)
    fronts = [points[()] for _, points in factors]
    total = fronts[0]
    for front in fronts[1:]:
        total = total.plus(front, limit)
    return total.pruned(limit)


def _least(front: Front) -> float:
    return float(np.min(front.cost)) if len(front.cost) else np.inf


def _table_size(key: str, factors: list[Factor], sizes: Mapping[str, int]) -> int:
    scope = {k for keys, _ in factors if key in keys for k in keys}
    return int(np.prod([sizes[k] for k in scope]))


def _without(key: str, touching: list[Factor], sizes: Mapping[str, int], limit: float) -> Factor:
    """Combine the factors that touch `key` and keep, for every setting of the others, the front over its options."""
    scope = tuple(sorted({k for keys, _ in touching for k in keys} - {key}))
    result = {}
    for setting in itertools.product(*(range(sizes[k]) for k in scope)):
        known = dict(zip(scope, setting, strict=True))
        fronts = []
        for option in range(sizes[key]):
            known[key] = option
            front: Front | None = None
            for keys, points in touching:
                part = points[tuple(known[k] for k in keys)]
                front = part if front is None else front.plus(part, limit)
            assert front is not None
            fronts.append(front)
        result[setting] = Front.union(fronts, limit)
    return scope, result
