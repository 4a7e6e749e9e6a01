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


@dataclass(frozen=True)
class Condition:
    """Decision `key` takes one of the options numbered `options`, of `count`."""

    key: str
    options: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Count:
    """A number that may depend on open decisions: {keys: table with one axis per key}, summed."""

    tables: Mapping[Keys, Table]
    _tensors: dict[tuple[torch.device, torch.dtype], dict[Keys, Tensor]] = field(
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

    def __add__(self, other: Count) -> Count:
        total = dict(self.tables)
        for keys, table in other.tables.items():
            total[keys] = total[keys] + table if keys in total else table
        return Count(total)

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
        return Count(product)

    def at(self, decisions: Mapping[str, int]) -> int:
        """The exact count where decision `key` takes option number `decisions[key]`."""
        return sum(int(table[tuple(decisions[key] for key in keys)]) for keys, table in self.tables.items())

    def switched(self, decisions: Mapping[str, int]) -> dict[str, Table]:
        """For every key the exact counts (K,) where it alone takes each of its options, the others as decided."""
        total = np.array(self.at(decisions), np.int64)
        found: dict[str, Table] = {}
        for keys, table in self.tables.items():
            place = tuple(decisions[key] for key in keys)
            for axis, key in enumerate(keys):
                row_K = np.moveaxis(table, axis, -1)[place[:axis] + place[axis + 1 :]]
                found[key] = found.get(key, total) + row_K - table[place]
        return found

    @property
    def value(self) -> int:
        """The exact count of a closed description."""
        return self.at({})

    def expected(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The expected count for independent decisions, as a differentiable scalar.

        Args:
            weights: for every key the K weights of its options (a draw or probabilities).
        """
        import torch

        one = next(iter(weights.values()))
        total, place = one.new_zeros(()), (one.device, one.dtype)
        if place not in self._tensors:
            self._tensors[place] = {
                keys: torch.as_tensor(table, dtype=one.dtype, device=one.device) for keys, table in self.tables.items()
            }
        for keys, values in self._tensors[place].items():
            axes = string.ascii_letters[: len(keys)]
            total = total + torch.einsum(
                f"{axes},{','.join(axes)}->" if axes else "->", values, *(weights[key] for key in keys)
            )
        return total


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
