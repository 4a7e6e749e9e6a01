"""How the logits of a search get their gradient: one file an estimator, named here and nowhere else."""

from __future__ import annotations

from dnas.errors import UserError
from dnas.search.estimators.between import Between
from dnas.search.estimators.estimator import Estimator
from dnas.search.estimators.full import Full
from dnas.search.estimators.sampled import Sampled
from dnas.search.estimators.score import Score
from dnas.search.estimators.switch import Switch

ESTIMATORS: dict[str, type[Estimator]] = {
    "between": Between,
    "switch": Switch,
    "score": Score,
    "sampled": Sampled,
    "full": Full,
}
"""What `arch.mode` may be. A new estimator is a file beside these and a line here."""


def pick_estimator(mode: str) -> type[Estimator]:
    """The estimator called `mode`.

    Raises:
        UserError: there is none.
    """
    if mode not in ESTIMATORS:
        raise UserError(f"arch.mode: found '{mode}', allowed: {', '.join(ESTIMATORS)}")
    return ESTIMATORS[mode]
