"""The interval of a paired difference: its coverage where the truth is known, and pairing."""

import numpy as np
import pytest

from dnas.eval.bootstrap import paired_difference


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    pids = np.repeat(np.arange(40), 4)
    hits = 0
    for _ in range(200):
        identity = rng.normal(0.02, 0.1, 40)[pids]  # a true difference of 0.02 that varies between identities
        difference = identity + rng.normal(0, 0.05, (5, 160))
        base = rng.uniform(0.2, 0.8, (5, 160))
        found = paired_difference(base + difference, base, pids, resamples=400)
        hits += found.low <= 0.02 <= found.high
    assert 0.88 <= hits / 200 <= 0.995


def test_shared_randomness_cancels() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 0.9, (3, 50))
    base[:, 7] = np.nan
    found = paired_difference(base + 0.01, base, np.arange(50) // 2)
    assert (found.mean, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))
    with pytest.raises(ValueError, match="shapes differ"):
        paired_difference(base, base[:2], np.arange(50))
