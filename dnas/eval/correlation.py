"""How far two verdicts on the same things agree: Spearman's rank correlation with a bootstrap interval.

Shapes: N things, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Correlation:
    """A rank correlation with its 95 % interval, of `count` things; NaN where one verdict is the same for all."""

    value: float
    low: float
    high: float
    count: int

    def plain(self) -> dict[str, float | None]:
        """As JSON values, which know no NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def spearman(one: Sequence[float], other: Sequence[float], resamples: int = 2000) -> Correlation:
    """Spearman's correlation; the interval resamples the things (percentiles, Efron and Tibshirani, 1993).

    Raises:
        ValueError: not as many verdicts of one kind as of the other.
    """
    one_N, other_N = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one_N.shape != other_N.shape:
        raise ValueError(f"verdicts: found {len(one_N)} and {len(other_N)}")
    everything = np.arange(len(one_N))[None]
    drawn_RN = np.random.default_rng(0).integers(0, max(len(one_N), 1), (resamples, len(one_N)))
    value = _correlations(one_N, other_N, everything)[0]
    found_R = _correlations(one_N, other_N, drawn_RN)
    found_R = found_R[~np.isnan(found_R)]
    low, high = np.quantile(found_R, [0.025, 0.975]) if len(found_R) else (np.nan, np.nan)
    return Correlation(float(value), float(low), float(high), len(one_N))


def _correlations(
    one_N: NDArray[np.float64], other_N: NDArray[np.float64], index_RN: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of every resample, ties at their mean rank; NaN where a verdict is the same for all."""
    if index_RN.shape[1] < 2:
        return np.full(len(index_RN), np.nan)
    from scipy.stats import rankdata  # slow to import

    centred = []
    for values_N in (one_N, other_N):
        ranks_RN = rankdata(values_N[index_RN], axis=1)
        centred.append(ranks_RN - ranks_RN.mean(1, keepdims=True))
    both_R = (centred[0] * centred[1]).sum(1)
    lengths_R = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    found: NDArray[np.float64] = np.divide(both_R, lengths_R, out=np.full(len(both_R), np.nan), where=lengths_R > 0)
    return found
