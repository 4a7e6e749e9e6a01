"""Cost of a description: MACs and parameters, exact when closed, expected when open.

A count is a sum of tables over small sets of decisions. The MACs of a convolution between two open
widths are a table over those two keys; inside a choice the table gains an axis for that choice.
Factors of one key contract jointly (sum_k g_k c_k^2, not (sum_k g_k c_k)^2) because they share an
axis; different keys are independent draws, so their weights multiply (method, section 4).
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dnas.space.holes import Channels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Keys = tuple[str, ...]
Table = NDArray[np.int64]
Factors = list[tuple[Keys, "Tensor"]]


@dataclass(frozen=True)
class Condition:
    """Decision `key` takes one of the options numbered `options`, of `count`."""

    key: str
    options: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Event:
    """Something that is so where all its parts are: tables of 0 and 1 over the keys of different decisions."""

    name: str
    """Tells events apart: the same parts, the same event."""
    parts: Mapping[Keys, Table] = field(compare=False)

    def missing(self, decisions: Mapping[str, int]) -> list[Keys]:
        """The keys of the parts that are not so."""
        return [keys for keys, table in self.parts.items() if not table[tuple(decisions[key] for key in keys)]]


Events = frozenset[Event]


@dataclass(frozen=True)
class Count:
    """A number that may depend on open decisions: {keys: table with one axis per key}, summed.

    `rare`: what is added to it where all of some events are so. An event over many decisions would need a table of all
    their options; it is kept as the product that it is.
    """

    tables: Mapping[Keys, Table]
    rare: Mapping[Events, Count] = field(default_factory=dict)
    _tensors: dict[tuple[torch.device, torch.dtype], tuple[Factors, Factors]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """The tables where they were needed before: copied to a device once, not in every step."""

    @staticmethod
    def of(*factors: int | Channels) -> Count:
        """The product of plain numbers and channel counts."""
        product = Count({(): np.array(1, np.int64)})
        for factor in factors:
            if isinstance(factor, int):
                product = product._times((), np.array(factor, np.int64))
            elif factor.key is None:
                product = product._times((), np.array(factor.size, np.int64))
            else:
                product = product._times((factor.key,), np.array(factor.values, np.int64))
        return product

    @staticmethod
    def all_of(parts: Iterable[Count]) -> Count:
        """1 where all parts are 1, else 0: parts are 0 or 1, and no key is in two of them."""
        tables = [part._merged() for part in parts]
        if any(not table.any() for _, table in tables):
            return NOTHING
        open_parts = {keys: table for keys, table in tables if not table.all()}
        if not open_parts:
            return Count.of(1)
        name = str([(keys, table.tobytes()) for keys, table in sorted(open_parts.items())])
        return Count({}, {frozenset({Event(name, open_parts)}): Count.of(1)})

    def _merged(self) -> tuple[Keys, Table]:
        """One table over all keys."""
        union = tuple(sorted({key for keys in self.tables for key in keys}))
        terms = (_aligned(table, keys, union) for keys, table in self.tables.items())
        total: Table = sum(terms, np.zeros([1] * len(union), np.int64))
        return union, total

    def __add__(self, other: Count) -> Count:
        total = dict(self.tables)
        for keys, table in other.tables.items():
            total[keys] = total[keys] + table if keys in total else table
        rare = dict(self.rare)
        for events, count in other.rare.items():
            rare[events] = rare[events] + count if events in rare else count
        return Count(total, rare)

    def __sub__(self, other: Count) -> Count:
        return self + Count.of(-1) * other

    def __mul__(self, other: Count) -> Count:
        total = NOTHING
        for events, own in {frozenset[Event](): self, **self.rare}.items():
            for more, factor in {frozenset[Event](): other, **other.rare}.items():
                product = NOTHING
                for keys, table in factor.tables.items():
                    product += Count(own.tables)._times(keys, table)
                both = events | more  # an event and itself are the event
                total += Count({}, {both: product}) if both else product
        return total._tidy()

    def _tidy(self) -> Count:
        """Without what adds nothing."""
        rare = {events: count for events, count in self.rare.items() if any(t.any() for t in count.tables.values())}
        return Count({keys: table for keys, table in self.tables.items() if table.any()}, rare)

    def under(self, conditions: Iterable[Condition]) -> Count:
        """This count where all conditions hold, zero otherwise."""
        total = self
        for condition in conditions:
            indicator = np.zeros(condition.count, np.int64)
            indicator[list(condition.options)] = 1
            total = total._times((condition.key,), indicator)
        return total

    def _times(self, keys: Keys, table: Table) -> Count:
        product: dict[Keys, Table] = {}
        for own_keys, own_table in self.tables.items():
            union = tuple(sorted({*own_keys, *keys}))
            term = _aligned(own_table, own_keys, union) * _aligned(table, keys, union)
            product[union] = product[union] + term if union in product else term
        return Count(product, {events: count._times(keys, table) for events, count in self.rare.items()})

    def at(self, decisions: Mapping[str, int]) -> int:
        """The exact count where decision `key` takes option number `decisions[key]`."""
        always = sum(int(table[tuple(decisions[key] for key in keys)]) for keys, table in self.tables.items())
        so = (count for events, count in self.rare.items() if not any(event.missing(decisions) for event in events))
        return always + sum(count.at(decisions) for count in so)

    def switched(self, decisions: Mapping[str, int], only: str | None = None) -> dict[str, Table]:
        """For every key the exact counts (K,) where it alone takes each of its options, the others as decided.

        Args:
            only: the one key that is wanted; a key on which nothing depends is not there.
        """
        total = np.array(self.at(decisions), np.int64)
        found: dict[str, Table] = {}
        for keys, table in self.tables.items():
            if only is not None and only not in keys:
                continue
            here = table[tuple(decisions[key] for key in keys)]
            for key in keys if only is None else (only,):
                found[key] = found.get(key, total) + _switched(keys, table, key, decisions) - here
        for events, count in self.rare.items():
            missing = [{*keys} for event in events for keys in event.missing(decisions)]
            parts = [part for event in events for part in event.parts.items()]
            mine = {key for keys, _ in [*parts, *count.tables.items()] for key in keys}
            changing = set.intersection(*missing) if missing else mine  # other keys cannot change it alone
            if only is not None:
                changing &= {only}
            if not changing:
                continue
            own, worth = count.switched(decisions, only), count.at(decisions)
            for key in changing:
                row_K = np.asarray(own.get(key, worth), np.int64)
                for keys, table in parts:
                    if key in keys:
                        row_K = row_K * _switched(keys, table, key, decisions)
                found[key] = found.get(key, total) + row_K - (0 if missing else worth)
        return found

    @property
    def value(self) -> int:
        """The exact count of a closed description."""
        return self.at({})

    @property
    def known(self) -> int | None:
        """The count, if it depends on nothing that is open."""
        return None if self.rare or any(keys for keys in self.tables) else self.value

    @property
    def events(self) -> list[Event]:
        """What the count depends on beside its tables."""
        return sorted({event for events in self.rare for event in events}, key=lambda event: event.name)

    def given(self, events: Events) -> Count:
        """The count where these events are so and no others are."""
        so = (count for these, count in self.rare.items() if these <= events)
        return sum(so, Count(self.tables))

    def expected(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The expected count for independent decisions, as a differentiable scalar.

        Args:
            weights: for every key the K weights of its options (a draw or probabilities).
        """
        like = next(iter(weights.values()))
        tables, parts = self._stacked(like)
        groups = _connected(parts)
        alone_R = [_contracted(group, weights) for group in groups]
        total = like.new_zeros(())
        for keys, values in tables:
            touching, expected_R = [(keys, values)], like.new_ones(())
            for group, factor_R in zip(groups, alone_R, strict=True):
                if any({*part} & {*keys} for part, _ in group):
                    touching += group
                else:
                    expected_R = expected_R * factor_R
            total = total + (expected_R * _contracted(touching, weights)).sum()
        return total

    def _stacked(self, like: Tensor) -> tuple[Factors, Factors]:
        """Tables, and parts of events, on a device, with an axis R in front: no event, then every set of `rare`."""
        place = (like.device, like.dtype)
        if place not in self._tensors:
            sets, counts = [frozenset[Event](), *self.rare], [self, *self.rare.values()]
            tables: Factors = []
            for keys in sorted({keys for count in counts for keys in count.tables}):
                known = [count.tables.get(keys) for count in counts]
                none = np.zeros_like(next(table for table in known if table is not None))
                tables.append((keys, like.new_tensor(np.stack([none if table is None else table for table in known]))))
            parts = [
                (keys, like.new_tensor(np.stack([table if event in events else table * 0 + 1 for events in sets])))
                for event in self.events
                for keys, table in event.parts.items()
            ]
            self._tensors[place] = tables, parts
        return self._tensors[place]


def _contracted(factors: Factors, weights: Mapping[str, Tensor]) -> Tensor:
    """The sum over all options of the product of some tables (R, ...) and of every key's weights, shape (R)."""
    import torch

    keys = sorted({key for own, _ in factors for key in own})
    letter = dict(zip(keys, string.ascii_lowercase, strict=False))
    axes = ["R" + "".join(letter[key] for key in own) for own, _ in factors]
    return torch.einsum(
        f"{','.join([*axes, *(letter[key] for key in keys)])}->R",
        *(values for _, values in factors), *(weights[key] for key in keys),
    )  # fmt: skip


def _connected(parts: Factors) -> list[Factors]:
    """Parts that share keys, together."""
    groups: list[Factors] = []
    for part in parts:
        near = [group for group in groups if any({*part[0]} & {*keys} for keys, _ in group)]
        groups = [group for group in groups if not any(group is other for other in near)]
        groups.append([part, *(other for group in near for other in group)])
    return groups


def _switched(keys: Keys, table: Table, key: str, decisions: Mapping[str, int]) -> Table:
    """The row (K,) of a table where `key` alone takes each of its options, the others as decided."""
    row_K: Table = table[tuple(slice(None) if other == key else decisions[other] for other in keys)]
    return row_K


def _aligned(table: Table, keys: Keys, union: Keys) -> Table:
    """`table` with an axis for every key of `union` (keys of a table are sorted)."""
    return table.reshape([table.shape[keys.index(key)] if key in keys else 1 for key in union])


NOTHING = Count({})


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates (of convolutions, linear layers and attention products) and parameters."""

    macs: Count = NOTHING
    params: Count = NOTHING

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params)


def conv(c_in: int | Channels, c_out: int | Channels, kernel: int, positions: int, bias: bool = False) -> Cost:
    """A dense k x k convolution with `positions` outputs; k = 1 is also a linear layer on tokens."""
    weights = Count.of(c_in, c_out, kernel * kernel)
    params = weights + Count.of(c_out) if bias else weights
    return Cost(Count.of(c_in, c_out, kernel * kernel * positions), params)


def depthwise(c: int | Channels, kernel: int, positions: int) -> Cost:
    """A depthwise k x k convolution without bias."""
    return Cost(Count.of(c, kernel * kernel * positions), Count.of(c, kernel * kernel))


def norm(c: int | Channels) -> Cost:
    """A batch norm: two parameters a channel, no MACs by convention."""
    return Cost(NOTHING, Count.of(c, 2))


def attention(c: int | Channels, queries: int, keys: int) -> Cost:
    """The two products of dot-product attention, Q K^T and A V."""
    return Cost(Count.of(c, 2 * queries * keys))
