"""What the options of a space add to a score of its networks: main effects.

Scores are put in order and spread like a normal distribution, and explained as a sum over the options that a network
has.

Shapes: N networks, P options of all decisions together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnas.space.spec import Choices, Decision

RIDGES = tuple(10.0**k for k in np.arange(-1, 3.1, 0.5))


@dataclass(frozen=True)
class Effects:
    """What the options add to the score, in standard deviations of the networks' scores.

    Args:
        of: decision -> an effect of each option.
        explained: the share of the scores' variance that they explain of networks that were left out; not above zero:
            they explain nothing, and the effects are zero.
    """

    of: dict[str, list[float]]
    explained: float

    def logits(self, weight: float) -> dict[str, list[float]]:
        """What says of a network that it is as likely as exp(weight * what its options add)."""
        return {key: [weight * effect for effect in own] for key, own in self.of.items()}


def main_effects(known: Mapping[str, Decision], networks: Sequence[Choices], scores: Sequence[float]) -> Effects:
    """Explain scores as a sum over options: ridge regression, as strong as predicts best what is left out.

    Args:
        scores: of the networks; -inf is the worst there is. Where all are the same nothing is explained.
    """
    from scipy.stats import norm, rankdata  # slow to import

    z_N = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    if z_N.std() == 0:
        return Effects({key: [0.0] * len(one.options) for key, one in known.items()}, 0.0)
    has = [np.eye(len(one.options))[[one.index(choices[key]) for choices in networks]] for key, one in known.items()]
    has_NP = np.concatenate(has, 1)
    effect_P, explained = _ridge(has_NP - has_NP.mean(0), (z_N - z_N.mean()) / z_N.std())
    if explained <= 0:
        effect_P = np.zeros_like(effect_P)
    parts = np.split(effect_P, np.cumsum([one.shape[1] for one in has])[:-1])
    return Effects({key: (part - part.mean()).tolist() for key, part in zip(known, parts, strict=True)}, explained)


def _ridge(x_NP: NDArray[np.float64], y_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Coefficients, and the share of the variance that is explained of each row by the others (closed form)."""
    u_NR, s_R, v_RP = np.linalg.svd(x_NP, full_matrices=False)
    found: list[tuple[float, NDArray[np.float64]]] = []
    for ridge in RIDGES:
        kept_R = s_R**2 / (s_R**2 + ridge)
        own_N = ((u_NR**2) * kept_R).sum(1) + 1 / len(y_N)  # the mean was taken from the row as well
        error_N = (y_N - u_NR @ (kept_R * (u_NR.T @ y_N))) / (1 - own_N)
        effect_P = v_RP.T @ (s_R / (s_R**2 + ridge) * (u_NR.T @ y_N))
        found.append((1 - float(np.mean(error_N**2)), effect_P))
    explained, effect_P = max(found, key=lambda one: one[0])
    return effect_P, explained
