"""Which decisions of a drawn network matter to it: the others are about parts that it does not have.

A decision matters where an operation that is there has a hole for it, or where another of its options, the rest as
drawn, would have other operations there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from dnas.space.cost import NOTHING, Count
from dnas.space.spec import Space, decisions


class Active:
    """The decisions that matter, by network of a space."""

    def __init__(self, space: Space) -> None:
        rng = random.Random(0)
        self._footprint = NOTHING
        """A number for each operation, summed over those that are there: other operations, another sum."""
        self._inside = []
        for leaf in space.spec.leaves(space.input):
            self._footprint += leaf.where(Count.of(rng.getrandbits(32)))
            holes = frozenset(decisions(leaf.spec))
            if holes:
                self._inside.append((leaf, holes))

    def of(self, index: Mapping[str, int]) -> frozenset[str]:
        """The keys that matter in the network of these options (by number)."""
        now = self._footprint.at(index)
        switched = {key for key, row_K in self._footprint.switched(index).items() if (row_K != now).any()}
        return frozenset(switched).union(*(holes for leaf, holes in self._inside if leaf.there(index)))
