"""Where the found network stands among random ones of its cost, all with the weights of the supernet.

Cheap, and only as good as those weights: how well their verdict agrees with trainings is `dnas.search.fidelity`'s
question, and the line says whether it was asked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from dnas.errors import UserError
from dnas.search.fidelity import Fidelity, Judge, peers
from dnas.space.spec import Choices

NETWORKS = 10


@dataclass(frozen=True)
class Standing:
    """Verdicts on what is held out, shares (0 to 1).

    Args:
        metric: what they are.
        found: the found network's.
        others: of the random networks; empty where there are none of its cost.
    """

    metric: str
    found: float
    others: list[float]

    @property
    def below(self) -> int:
        """How many random networks are worse than the found one."""
        return sum(other < self.found for other in self.others)

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def line(self, fidelity: Fidelity | None) -> str:
        """In words, beside the rank correlation where it was measured."""
        own = f"with the supernet's weights the found network has a held-out {self.metric} of {self.found:.1%}"
        if not self.others:
            return f"{own}; other networks of its cost are too rare to hold it against"
        trust = "not measured (--verify, dnas fidelity)" if fidelity is None else str(fidelity.correlation)
        return (
            f"{own}, above {self.below} of {len(self.others)} random ones of its cost (mean {mean(self.others):.1%});"
            f" rank correlation of such verdicts with trainings: {trust}"
        )


def stand(judge: Judge, found: Choices) -> Standing:
    """Judge the found network and some random ones with inherited weights."""
    try:
        drawn = peers(judge, found, NETWORKS)
    except UserError:
        drawn = []
    own, *others = (judge.children.score(choices, judge.task) for choices in (found, *drawn))
    return Standing(judge.task.metric, own, others)
