"""Ranking against plain loops over sorted lists."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from dnas.errors import UserError
from dnas.eval.ranking import rank, rank_by

Ids = NDArray[np.int64]


def plain(
    distance: NDArray[np.float64], q: tuple[Ids, Ids], g: tuple[Ids, Ids]
) -> list[tuple[float, float, float] | None]:
    """(AP, rank of the first match, INP) of every query; ties: wrong before right."""
    found: list[tuple[float, float, float] | None] = []
    for row, (pid, cam) in enumerate(zip(*q, strict=True)):
        listed = []
        for column, (g_pid, g_cam) in enumerate(zip(*g, strict=True)):
            if g_pid == pid and g_cam == cam:
                continue
            listed.append((distance[row, column], g_pid == pid))
        listed.sort(key=lambda item: (item[0], item[1]))  # False sorts before True
        places = [place for place, (_, right) in enumerate(listed, start=1) if right]
        if not places:
            found.append(None)
            continue
        precisions = [hit / place for hit, place in enumerate(places, start=1)]
        found.append((sum(precisions) / len(places), places[0], len(places) / places[-1]))
    return found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cameras", [1, 3])
def test_equals_plain_loops(ties: bool, cameras: int) -> None:
    rng = np.random.default_rng(int(ties) + cameras)
    for _ in range(10):
        q, g = ((rng.integers(0, 6, n), rng.integers(0, cameras, n)) for n in (17, 60))
        features = [rng.normal(size=(n, 2 if ties else 8)) for n in (17, 60)]
        if ties:
            features = [np.round(f) + np.array([0.5, 0]) for f in features]  # many equal directions
        query, gallery = (torch.nn.functional.normalize(torch.from_numpy(f), dim=1) for f in features)
        distance = (1 - query @ gallery.T).numpy()
        expected, found = plain(distance, q, g), rank(query, gallery, q, g, chunk=5)
        for row, values in enumerate(expected):
            if values is None:
                assert np.isnan(found.ap[row])
                continue
            assert found.ap[row] == pytest.approx(values[0], abs=1e-9)
            assert found.first_match[row] == values[1]
            assert found.inp[row] == pytest.approx(values[2], abs=1e-9)
        valid = [values for values in expected if values is not None]
        if valid:
            metrics = found.metrics()
            assert metrics["mAP"] == pytest.approx(float(np.mean([v[0] for v in valid])), abs=1e-9)
            assert metrics["rank5"] == pytest.approx(float(np.mean([v[1] <= 5 for v in valid])), abs=1e-9)


def test_ties_do_not_depend_on_gallery_order() -> None:
    query, gallery = torch.eye(2)[:1], torch.eye(2)[[0, 0, 0, 1]]
    q, pids, cams = (np.array([1]), np.array([0])), np.array([1, 2, 2, 1]), np.array([1, 1, 1, 1])
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [3, 1, 0, 2]):
        found = rank(query, gallery[order], q, (pids[order], cams[order]))
        assert found.first_match[0] == 3  # two wrong images at the same distance come first


def test_a_diverged_embedding_is_refused() -> None:
    ids = (np.array([1, 1]), np.array([0, 1]))
    with pytest.raises(UserError, match="not finite"):
        rank(torch.full((2, 2), torch.nan), torch.eye(2), ids, ids)


def test_no_valid_query_is_an_error() -> None:
    found = rank(torch.eye(2), torch.eye(2), (np.array([1, 2]), np.zeros(2, int)), (np.array([3, 4]), np.ones(2, int)))
    with pytest.raises(UserError, match="no query has a match"):
        found.metrics()


def test_given_distances_are_left_as_they_are() -> None:
    rng = np.random.default_rng(0)
    distance = torch.from_numpy(rng.random((9, 30)))
    before = distance.clone()
    q, g = ((rng.integers(0, 4, n), rng.integers(0, 3, n)) for n in (9, 30))
    found, expected = rank_by(lambda part: distance[part], q, g, distance.device, 4), plain(distance.numpy(), q, g)
    assert torch.equal(distance, before)
    for row, values in enumerate(expected):
        assert values is not None
        assert (found.ap[row], found.first_match[row], found.inp[row]) == pytest.approx(values, abs=1e-9)


def test_euclidean_distance_sees_lengths() -> None:
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[9.0, 0.0], [1.0, 0.4]])
    q, g = (np.array([1]), np.array([0])), (np.array([1, 2]), np.array([1, 1]))
    assert rank(F.normalize(query, dim=1), F.normalize(gallery, dim=1), q, g).first_match[0] == 1
    assert rank(query, gallery, q, g, "euclidean").first_match[0] == 2
