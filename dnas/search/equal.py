"""Undecided choices at the end of a search: are their likeliest options equal, as far as held-out data can tell?

The found network and the same with one choice switched, both with the supernet's weights and batch norm statistics
of their own, are held against each other on every held-out item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dnas.eval.bootstrap import Difference, paired_difference
from dnas.search.children import Children
from dnas.space.spec import Choice, Choices, Decision
from dnas.task.task import Task

MOST = 24
"""Choices that are looked at, the least decided first; each costs a look at what is held out."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Rivals:
    """A choice between two options: what the taken one has above the other, a share (0 to 1) with its 95 % interval."""

    taken: Choice
    other: Choice
    difference: Difference

    @property
    def equal(self) -> bool:
        """Whether the data cannot tell them apart."""
        return self.difference.low <= 0 <= self.difference.high

    def plain(self) -> dict[str, Any]:
        return {"taken": self.taken, "other": self.other, **asdict(self.difference), "equal": self.equal}


def rivals(
    undecided: Sequence[str],
    decisions: Mapping[str, Decision],
    probabilities: Mapping[str, Tensor],
    choices: Choices,
    children: Children,
    task: Task,
) -> dict[str, Rivals]:
    """Hold the option that was taken against the likeliest other one, for every undecided choice."""
    found: dict[str, Rivals] = {}
    order = sorted(undecided, key=lambda key: float(probabilities[key].max()))[:MOST]
    own = task.each(children.recalibrated(choices)) if order else None
    for key in order:
        assert own is not None
        options, p = decisions[key].options, probabilities[key].tolist()
        other = options[max((k for k in range(len(options)) if options[k] != choices[key]), key=p.__getitem__)]
        switched = task.each(children.recalibrated({**choices, key: other}))
        gain = paired_difference(own.score_N[None], switched.score_N[None], own.group_N, RESAMPLES)
        found[key] = Rivals(choices[key], other, gain)
    return found
