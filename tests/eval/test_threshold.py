"""Thresholds and their intervals, and searching in an open set, against plain loops."""

import numpy as np
import pytest
import torch

from dnas.errors import UserError
from dnas.eval.open_set import best_similarities, open_set
from dnas.eval.threshold import Pairs, calibration, pairs, points, threshold


def people(count: int, each: int, seed: int = 0, spread: float = 0.6) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Unit vectors (N, 8), identities from 1 on, two cameras."""
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(1, count + 1), each)
    vectors = rng.normal(size=(count, 8))[pids - 1] + spread * rng.normal(size=(count * each, 8))
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1)
    return unit, pids, np.arange(len(pids)) % 2


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_pairs_by_hand(distance: str) -> None:
    x, pids, camids = people(12, 4)
    pids[:3] = 0  # nobody
    found = pairs(x, pids, camids, distance)  # type: ignore[arg-type]
    different, same = [], []
    for i in range(len(x)):
        for j in range(i):
            if pids[i] and pids[j]:
                value = float(x[i] @ x[j]) if distance == "cosine" else -float((x[i] - x[j]).norm())
                if pids[i] != pids[j]:
                    different.append(value)
                elif camids[i] != camids[j]:
                    same.append(value)
    np.testing.assert_allclose(found.different, sorted(different, reverse=True), atol=1e-4)
    np.testing.assert_allclose(np.sort(found.same), sorted(same), atol=1e-4)
    for share in (0.01, 0.1):
        value, kept = threshold(found, share)
        assert np.mean(np.array(different) >= value) == pytest.approx(share, abs=1 / len(different))
        assert kept == pytest.approx(np.mean(np.array(same) >= value))


def test_weights_count_identities_as_often() -> None:
    """An identity with weight 2 is two identities with the same pictures; and weight 1 for all is no weight."""
    x, pids, camids = people(10, 4)
    found = pairs(x, pids, camids, "cosine")
    ones = np.ones(10)
    assert threshold(found, 0.1, ones) == pytest.approx(threshold(found, 0.1), abs=1e-6)
    weights = np.array([2.0, *[1] * 9])
    twice = found.different.repeat(np.where((found.first == 0) | (found.second == 0), 2, 1))
    value, kept = threshold(found, 0.1, weights)
    assert np.mean(twice >= value) == pytest.approx(0.1, abs=2 / len(twice))
    same = found.same.repeat(np.where(found.who == 0, 2, 1))
    assert kept == pytest.approx(np.mean(same >= value))


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """Of the threshold of a large population, about as often as they say."""
    large = pairs(*people(700, 4, 99), "cosine")
    truth = threshold(large, 0.01)
    held = []
    for seed in range(30):
        point = points(pairs(*people(60, 4, seed), "cosine"), seed)[0]
        assert point.similarity_low <= point.similarity <= point.similarity_high
        held.append(
            (point.similarity_low <= truth[0] <= point.similarity_high, point.found_low <= truth[1] <= point.found_high)
        )
    assert (np.mean(held, axis=0) >= 0.8).all()


def test_few_pairs_say_nothing() -> None:
    found = calibration(*people(6, 2), "cosine")
    assert found["points"] == []
    found = calibration(*people(60, 4), "cosine")
    assert [point["share"] for point in found["points"]] == [0.01, 0.001]
    assert np.all(np.diff(found["curve"]["missed"]) <= 0)
    x, pids, camids = people(6, 2)
    for wrong in (pids * 0 + 1, np.arange(len(pids)) + 1):
        with pytest.raises(UserError, match="needs pairs"):
            pairs(x, wrong, camids, "cosine")
    with pytest.raises(UserError, match="needs pairs"):
        pairs(x[::2], pids[::2], camids[::2], "cosine")


def test_tail_reaches_what_resampling_needs() -> None:
    rising = Pairs(np.arange(100, 0, -1).astype(np.float32), np.zeros(100, int), np.ones(100, int),
                   np.array([90, 10], np.float32), np.zeros(2, int), np.array([10, 10]))  # fmt: skip
    assert threshold(rising, 0.1) == (90.5, 0.0)
    assert threshold(rising, 0.2) == (80.5, 0.5)


def test_open_set_by_hand() -> None:
    query, pids, camids = people(15, 2, 1)
    gallery = (query + 0.2 * torch.randn(query.shape)).clone()
    ids, gallery_ids = (pids, camids), (pids.copy(), 1 - camids)
    gallery_ids[0][:2] = 99  # the first person is not there
    own, other = best_similarities(query, gallery, ids, gallery_ids, "cosine", chunk=7)
    expected = []
    for q in range(len(query)):
        near = (gallery @ query[q]).tolist()
        mine = [s for s, p, c in zip(near, *gallery_ids, strict=True) if p == pids[q] and c != camids[q]]
        rest = [s for s, p in zip(near, gallery_ids[0], strict=True) if p != pids[q]]
        if mine:
            expected.append((max(mine), max(rest)))
    assert len(expected) == 28
    np.testing.assert_allclose(np.stack([own, other], 1), expected, atol=1e-6)
    rows = open_set(own, other, measured=0.7)
    assert [row.measured for row in rows] == [False, True]  # 28 queries are too few for one in a hundred
    for row in rows:
        alarms = np.mean([rest >= row.threshold for _, rest in expected])
        found = np.mean([mine >= row.threshold and mine > rest for mine, rest in expected])
        assert (row.false_alarms, row.found) == pytest.approx((alarms, found))
    assert rows[0].false_alarms == pytest.approx(2 / 28)
    with pytest.raises(UserError, match="found 1 queries with a match"):
        open_set(own[:1], other[:1])
