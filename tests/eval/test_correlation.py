"""Rank correlations against scipy and plain loops."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from dnas.eval.correlation import spearman


def test_it_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    for count in (3, 8, 40):
        one, other = rng.integers(0, 6, count).astype(float), rng.normal(size=count)
        found = spearman(one.tolist(), other.tolist(), 50)
        assert found.value == pytest.approx(spearmanr(one, other)[0])
        assert found.count == count


def test_the_interval_is_that_of_resampled_things() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=25)
    other = one + rng.normal(size=25)
    found, draws = spearman(one.tolist(), other.tolist(), 4000), np.random.default_rng(2)
    resampled = []
    for _ in range(4000):
        drawn = draws.integers(0, 25, 25)
        resampled.append(spearmanr(one[drawn], other[drawn])[0])
    assert (found.low, found.high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.03)
    assert found.low < found.value < found.high


def test_what_has_no_correlation() -> None:
    assert np.isnan(spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value)
    assert np.isnan(spearman([1.0], [1.0]).value)
    assert spearman([1.0], [1.0]).plain() == {"value": None, "low": None, "high": None, "count": 1}
    with pytest.raises(ValueError, match="found 2 and 1"):
        spearman([1.0, 2.0], [1.0])
