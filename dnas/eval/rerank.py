"""Re-ranking with k-reciprocal encoding (Zhong et al., CVPR 2017, arXiv 1701.08398), sparse: no N x N matrix.

Shapes: N = Q + G images (G where the queries are those of the gallery), D embedding. Sets of neighbours are the rows of
sparse N x N matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:  # slow to import
    from scipy.sparse import csr_matrix

CHUNK = 512
"""Rows of distances at a time."""


class Reranked:
    """Distances after re-ranking, a few queries at a time.

    Args:
        query_QD, gallery_GD: unit vectors.
        one_set: the queries are the images of the gallery, in their order (leave one out): each is there once.
        k1: neighbours that two images must be among, mutually, to count as near.
        k2: neighbours whose encodings are averaged (all images, where there are fewer).
        weight: of the original distance (lambda); the rest is the Jaccard distance.
    """

    def __init__(
        self,
        query_QD: Tensor,
        gallery_GD: Tensor,
        k1: int = 20,
        k2: int = 6,
        weight: float = 0.3,
        one_set: bool = False,
    ) -> None:
        self.weight, self.queries = weight, len(query_QD)
        self.features_ND = gallery_GD if one_set else torch.cat([query_QD, gallery_GD])
        self.gallery = slice(0 if one_set else self.queries, None)
        near_NK, self.largest_N = self._neighbours(max(k1 + 1, k2))
        mutual, half = _mutual(near_NK, k1 + 1), _mutual(near_NK, round(k1 / 2) + 1)
        # a neighbour's own mutual neighbours join where more than two thirds of them are here already
        shared = (mutual @ half.T).multiply(mutual).tocsr()
        size_N = np.diff(half.indptr)
        shared.data = (3 * shared.data > 2 * size_N[shared.indices]).astype(np.int32)
        encoding = self._weighted((mutual + shared @ half).tocsr())
        if k2 > 1:
            averaged = near_NK[:, :k2]
            encoding = _rows(averaged, np.full(averaged.shape, 1 / averaged.shape[1])) @ encoding
        self.encoding = encoding.tocsr()
        self.by_column = self.encoding[self.gallery].tocsc()

    def _neighbours(self, k: int) -> tuple[NDArray[np.int64], Tensor]:
        """The k nearest images of every image (itself among them), and its largest squared distance."""
        near, largest = [], []
        for rows in self.features_ND.split(CHUNK):
            distance = 2 - 2 * rows @ self.features_ND.T
            near.append(distance.topk(min(k, distance.shape[1]), largest=False).indices.cpu())
            largest.append(distance.amax(1))
        return torch.cat(near).numpy(), torch.cat(largest)

    def _weighted(self, sets: csr_matrix) -> csr_matrix:
        """exp(-d) on the members of every set, summing to one; d is relative to the row's largest."""
        sets.eliminate_zeros()
        rows = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
        parts = []
        pairs = torch.from_numpy(np.stack([rows, sets.indices])).to(self.features_ND.device)
        for first, second in zip(*(side.split(CHUNK * 256) for side in pairs), strict=True):
            dot = torch.linalg.vecdot(self.features_ND[first], self.features_ND[second])
            parts.append(torch.exp(-(2 - 2 * dot) / self.largest_N[first]).cpu())
        values = torch.cat(parts).numpy().astype(np.float64)
        total = np.bincount(rows, values, sets.shape[0])
        return _csr(values / total[rows], sets.indices, sets.indptr, sets.shape[0])

    def rows(self, part: slice) -> Tensor:
        """Distances (q, G) of some queries."""
        queries = self.features_ND[: self.queries][part]
        original = (2 - 2 * queries @ self.features_ND[self.gallery].T) / self.largest_N[: self.queries][part, None]
        own = self.encoding[: self.queries][part]
        gallery = self.by_column.shape[0]
        # every entry of a query's encoding meets that column's entries in the gallery: pairs, all at once
        start, count = self.by_column.indptr[own.indices], np.diff(self.by_column.indptr)[own.indices]
        steps = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        place = np.repeat(start, count) + steps
        smaller = np.minimum(np.repeat(own.data, count), self.by_column.data[place])
        row = np.repeat(np.repeat(np.arange(len(queries)), np.diff(own.indptr)), count)
        overlap = np.bincount(row * gallery + self.by_column.indices[place], smaller, len(queries) * gallery)
        common = torch.from_numpy(overlap.reshape(len(queries), gallery)).to(original)
        return (1 - common / (2 - common)) * (1 - self.weight) + original * self.weight


def _rows(index_NK: NDArray[np.int64], values_NK: NDArray[np.float64] | NDArray[np.int32]) -> csr_matrix:
    """A sparse matrix with `values_NK` at the columns `index_NK` of each row."""
    n, k = index_NK.shape
    return _csr(values_NK.ravel(), index_NK.ravel(), np.arange(0, n * k + 1, k), n)


def _csr(values: NDArray[Any], columns: NDArray[Any], starts: NDArray[Any], n: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    return csr_matrix((values, columns, starts), (n, n))


def _mutual(near_NK: NDArray[np.int64], k: int) -> csr_matrix:
    """Which images are among each other's k nearest."""
    nearest = _rows(near_NK[:, :k], np.ones((len(near_NK), min(k, near_NK.shape[1])), np.int32))
    return nearest.multiply(nearest.T).tocsr()
