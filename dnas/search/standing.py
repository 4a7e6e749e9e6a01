"""Where the found network stands among random ones, all with the weights of the supernet.

Cheap, and only as good as those weights: how well their verdict agrees with trainings is `dnas.search.fidelity`'s
question, and the line says whether it was asked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from dnas.search.fidelity import Fidelity, Judge, draw_peers
from dnas.search.random_networks import TooRareError
from dnas.space.spec import Choices

NETWORKS = 10


@dataclass(frozen=True)
class Standing:
    """Verdicts on what is held out, shares (0 to 1).

    Args:
        metric: what they are.
        found: the found network's.
        others: of the random networks; empty where they are too rare.
        peers: which random ones they are, in words (`Judge.peers`).
        trust: the rank correlation of such verdicts with trainings, in words.
    """

    metric: str
    found: float
    others: list[float]
    peers: str
    trust: str

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """In words."""
        own = f"with the supernet's weights the found network has a held-out {self.metric} of {self.found:.1%}"
        if not self.others:
            return f"{own}; {self.peers} are too rare to hold it against"
        below = sum(other < self.found for other in self.others)
        return (
            f"{own}, above {below} of {len(self.others)} {self.peers} (mean {mean(self.others):.1%});"
            f" rank correlation of such verdicts with trainings: {self.trust}"
        )


def stand(judge: Judge, found: Choices, fidelity: Fidelity | None) -> Standing:
    """Judge the found network and some random ones with inherited weights; a fidelity has done so."""
    if fidelity is not None:
        others, trust = [one.inherited for one in fidelity.others], str(fidelity.correlation)
        return Standing(fidelity.metric, fidelity.found.inherited, others, fidelity.peers, trust)
    try:
        drawn = draw_peers(judge, found, NETWORKS)
    except TooRareError:
        drawn = []
    own, *others = (judge.children.score(choices, judge.task) for choices in (found, *drawn))
    return Standing(judge.task.metric, own, others, judge.peers, "not measured (--verify, dnas fidelity)")
