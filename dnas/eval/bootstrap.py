"""Paired bootstrap: an interval for the difference in mAP of two models (Efron and Tibshirani, 1993).

Shapes: S seeds, Q queries, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Difference:
    """Mean difference and its 95 % interval, in the units of the input."""

    mean: float
    low: float
    high: float


def paired_difference(
    ap_SQ: NDArray[np.float64], other_SQ: NDArray[np.float64], pids_Q: NDArray[np.int64], resamples: int = 10_000
) -> Difference:
    """mAP of the first model minus that of the second, resampling seeds and query identities together.

    Seed s of both models shares whatever randomness they share; every query of a drawn identity comes with
    it, because queries of one identity are not independent. Queries without a match (NaN) do not count.

    Args:
        ap_SQ, other_SQ: average precision of every query, a row per seed.
        pids_Q: identity of every query.

    Raises:
        ValueError: the two models were not run with the same seeds and queries.
    """
    if ap_SQ.shape != other_SQ.shape or ap_SQ.shape[1] != len(pids_Q):
        raise ValueError(f"shapes differ: {ap_SQ.shape}, {other_SQ.shape} and {len(pids_Q)} queries")
    difference_SQ = ap_SQ - other_SQ
    valid_Q = ~np.isnan(difference_SQ).any(0)
    difference_SQ, pids_Q = difference_SQ[:, valid_Q], pids_Q[valid_Q]
    labels_Q = np.unique(pids_Q, return_inverse=True)[1]
    count_I = np.bincount(labels_Q).astype(np.float64)
    sum_SI = np.stack([np.bincount(labels_Q, weights=row) for row in difference_SQ])
    seeds, identities = sum_SI.shape
    rng = np.random.default_rng(0)
    seed_weight_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    weight_RI = rng.multinomial(identities, np.full(identities, 1 / identities), resamples)
    total_R = ((seed_weight_RS @ sum_SI) * weight_RI).sum(1) / (weight_RI @ count_I)
    low, high = np.quantile(total_R, [0.025, 0.975])
    return Difference(float(difference_SQ.mean()), float(low), float(high))
