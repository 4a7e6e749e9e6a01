"""Re-ranking against the algorithm written as plain loops over dense matrices (arXiv 1701.08398, sections 3.2-3.4)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional as F

from dnas.eval.ranking import rank, rank_by
from dnas.eval.rerank import Reranked

Table = NDArray[np.float64]


def plain(features: Table, queries: int, k1: int, k2: int, weight: float, one_set: bool = False) -> Table:
    squared = 2 - 2 * features @ features.T
    distance = squared / squared.max(1, keepdims=True)
    order = distance.argsort(1, kind="stable")

    def mutual(i: int, k: int) -> set[int]:
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    n = len(features)
    encoding = np.zeros((n, n))
    for i in range(n):
        members = mutual(i, k1)
        joined = set(members)
        for j in members:
            candidates = mutual(j, round(k1 / 2))
            if len(candidates & members) > 2 / 3 * len(candidates):
                joined |= candidates
        for j in joined:
            encoding[i, j] = np.exp(-distance[i, j])
    encoding /= encoding.sum(1, keepdims=True)
    encoding = np.stack([encoding[order[i, :k2]].mean(0) for i in range(n)])
    jaccard = np.ones((queries, n))
    for q in range(queries):
        for g in range(n):
            jaccard[q, g] -= np.minimum(encoding[q], encoding[g]).sum() / np.maximum(encoding[q], encoding[g]).sum()
    return ((1 - weight) * jaccard + weight * distance[:queries])[:, 0 if one_set else queries :]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (5, 1, 0.0), (7, 3, 1.0), (60, 6, 0.3)])
def test_equals_plain_loops(k1: int, k2: int, weight: float) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 8))
    features = centres[rng.integers(0, 6, 50)] + rng.normal(size=(50, 8)) * 0.8
    unit = F.normalize(torch.from_numpy(features), dim=1)
    found = Reranked(unit[:9], unit[9:], k1, k2, weight)
    expected = plain(unit.numpy(), 9, k1, k2, weight)
    rows = torch.cat([found.rows(slice(0, 4)), found.rows(slice(4, 9))])
    np.testing.assert_allclose(rows.numpy(), expected, atol=1e-9)


@settings(max_examples=60)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 5), st.integers(1, 16), st.integers(0, 2**31))
def test_equals_plain_loops_whatever_the_sizes(k1: int, k2: int, queries: int, gallery: int, seed: int) -> None:
    """Also where k2 is more than k1 + 1, or than all images there are."""
    unit = F.normalize(torch.from_numpy(np.random.default_rng(seed).normal(size=(queries + gallery, 4))), dim=1)
    found = Reranked(unit[:queries], unit[queries:], k1, k2, 0.3).rows(slice(0, queries))
    np.testing.assert_allclose(found.numpy(), plain(unit.numpy(), queries, k1, k2, 0.3), atol=1e-9)


def test_leave_one_out_has_every_image_once() -> None:
    """Twice, each would be its own neighbour, and 20 neighbours would be 10 images."""
    unit = F.normalize(torch.from_numpy(np.random.default_rng(0).normal(size=(30, 5))), dim=1)
    found = Reranked(unit, unit, 7, 3, 0.3, one_set=True)
    rows = torch.cat([found.rows(slice(0, 11)), found.rows(slice(11, 30))])
    np.testing.assert_allclose(rows.numpy(), plain(unit.numpy(), 30, 7, 3, 0.3, one_set=True), atol=1e-9)


def test_only_the_original_distance_ranks_as_before() -> None:
    rng = np.random.default_rng(1)
    unit = F.normalize(torch.from_numpy(rng.normal(size=(80, 6))), dim=1)
    q, g = ((rng.integers(0, 5, n), rng.integers(0, 3, n)) for n in (20, 60))
    before = rank(unit[:20], unit[20:], q, g).metrics()
    rows = Reranked(unit[:20], unit[20:], weight=1.0).rows
    assert rank_by(rows, q, g, unit.device, chunk=7).metrics() == pytest.approx(before)
