"""The nearest vectors: exact, or in the cells that are nearest to the query (IVF, by FAISS).

Exact is one matrix product and has nothing to go wrong (numpy's was about four times as fast as FAISS's `knn` for 64
queries in 100,000 vectors, on two cores); the cells pay from some 100,000 vectors on, and how many of them are looked
at is decided by measuring the recall against exact.

Shapes: Q queries, N vectors, D embedding, K neighbours; C cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.eval.embed import Distance
from dnas.serve.network import Vectors
from dnas.serve.store import Coarse

MOST_EXACT = 200_000
"""Vectors that are searched exactly; an approximate index above."""
RECALL, TRIED, NEIGHBOURS = 0.995, 500, 10
"""Least share of the ten nearest that the approximate index must find, of this many vectors of its own as queries."""
PER_CELL = 40
"""Vectors a cell that its centre is computed from, about as FAISS advises (39 at least)."""
ITERATIONS = 8
MOST_NUMBERS = 1 << 25
"""Similarities held at a time."""

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Similarities (Q, K), falling, and positions (Q, K) of the vectors; -1 where there are fewer than K."""


def library() -> Any:
    """FAISS.

    Raises:
        UserError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError("faiss is not installed: pip install 'dnas-reid[serve]'") from None
    return faiss


class Nearest(Protocol):
    """Finds the nearest of its vectors."""

    def search(self, queries_QD: Vectors, k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        """The k nearest, among the positions `allowed` (ascending) if they are given."""
        ...


@dataclass(frozen=True)
class Exact:
    """All vectors, one by one."""

    vectors_ND: Vectors
    distance: Distance

    def search(self, queries_QD: Vectors, k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        among_ND = self.vectors_ND if allowed is None else self.vectors_ND[allowed]
        k = min(k, len(among_ND))
        similar_QK = np.empty((len(queries_QD), k), np.float32)
        place_QK = np.empty((len(queries_QD), k), np.int64)
        if k == 0:
            return similar_QK, place_QK
        square_N = (among_ND**2).sum(1) if self.distance == "euclidean" else None
        step = max(1, MOST_NUMBERS // len(among_ND))
        for start in range(0, len(queries_QD), step):
            part = queries_QD[start : start + step]
            near_BN = part @ among_ND.T
            if square_N is not None:  # minus the squared distance
                near_BN = 2 * near_BN - square_N - (part**2).sum(1, keepdims=True)
            place_BK = np.argpartition(near_BN, len(among_ND) - k, axis=1)[:, len(among_ND) - k :]
            values_BK = np.take_along_axis(near_BN, place_BK, 1)
            order_BK = np.argsort(-values_BK, axis=1, kind="stable")
            similar_QK[start : start + step] = np.take_along_axis(values_BK, order_BK, 1)
            place_QK[start : start + step] = np.take_along_axis(place_BK, order_BK, 1)
        return similarity(similar_QK, self.distance, -1), place_QK if allowed is None else allowed[place_QK]


class Approximate:
    """The cells nearest to a query."""

    def __init__(self, vectors_ND: Vectors, coarse: Coarse, cells_N: NDArray[np.int64], distance: Distance) -> None:
        self.distance, self.probes = distance, coarse.probes
        self.index = filled(coarse, vectors_ND, cells_N, distance)

    def search(self, queries_QD: Vectors, k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        faiss = library()
        selector = None if allowed is None else faiss.IDSelectorBatch(allowed)
        settings = faiss.SearchParametersIVF(sel=selector, nprobe=self.probes)
        queries = np.ascontiguousarray(queries_QD, np.float32)
        values, place = self.index.search(queries, min(k, self.index.ntotal), params=settings)
        return similarity(values, self.distance, 1), place


def similarity(values: NDArray[np.float32], distance: Distance, sign: int) -> NDArray[np.float32]:
    """Dot products as they are; squared distances, of this sign, become minus the distance."""
    return values if distance == "cosine" else -np.sqrt((sign * values).clip(min=0))


def empty_index(centroids_CD: Vectors, distance: Distance) -> Any:
    """FAISS's own index with these cells and nothing in them."""
    faiss = library()
    cosine = distance == "cosine"
    count, dim = centroids_CD.shape
    quantizer = faiss.IndexFlatIP(dim) if cosine else faiss.IndexFlatL2(dim)
    metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
    index = faiss.IndexIVFFlat(quantizer, dim, count, metric)
    quantizer.add(np.ascontiguousarray(centroids_CD))
    index.is_trained = True
    return index


def filled(coarse: Coarse, vectors_ND: Vectors, cells_N: NDArray[np.int64], distance: Distance) -> Any:
    """The index with vectors in cells that are known."""
    faiss = library()
    index = empty_index(coarse.centroids, distance)
    vectors, cells = np.ascontiguousarray(vectors_ND), np.ascontiguousarray(cells_N)
    numbers = np.arange(len(vectors), dtype=np.int64)
    pointers = (faiss.swig_ptr(array) for array in (vectors, numbers, cells))
    index.add_core(len(vectors), *pointers)
    return index


def assign(centroids_CD: Vectors, vectors_ND: Vectors, distance: Distance) -> NDArray[np.int64]:
    """The nearest cell (N) of every vector."""
    return Exact(centroids_CD, distance).search(vectors_ND, 1)[1][:, 0]


def build(vectors_ND: Vectors, distance: Distance, seed: int = 0) -> tuple[Coarse, NDArray[np.int64]]:
    """Cells for these vectors, and as many to look at as their recall needs. Returns them and the cell of each vector.

    2 sqrt(N) cells (k-means, spherical for the cosine): looking through the centres then costs about as much as
    looking through a few cells.
    """
    faiss = library()
    n, dim = vectors_ND.shape
    count = max(1, round(2 * math.sqrt(n)))
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(n, min(n, PER_CELL * count), replace=False))
    settings = {"niter": ITERATIONS, "seed": seed + 1, "spherical": distance == "cosine"}
    kmeans = faiss.Kmeans(dim, count, min_points_per_centroid=1, max_points_per_centroid=PER_CELL, **settings)
    kmeans.train(np.ascontiguousarray(vectors_ND[sample]))
    centroids = np.ascontiguousarray(kmeans.centroids, np.float32)
    cells_N = assign(centroids, vectors_ND, distance)
    unmeasured = Coarse(centroids, 1, 0.0, n)
    approximate = Approximate(vectors_ND, unmeasured, cells_N, distance)
    tried = vectors_ND[np.sort(rng.choice(n, min(n, TRIED), replace=False))]
    truth = Exact(vectors_ND, distance).search(tried, NEIGHBOURS)[0]

    def recall(probes: int) -> float:
        approximate.probes = probes
        return _recall(approximate.search(tried, NEIGHBOURS)[0], truth)

    probes = fewest(lambda probes: recall(probes) >= RECALL, count)
    return Coarse(centroids, probes, recall(probes), n), cells_N


def fewest(enough: Callable[[int], bool], most: int) -> int:
    """About the smallest number that is enough (at most a sixteenth more), or `most`."""
    few, many = 0, 1
    while many < most and not enough(many):
        few, many = many, min(2 * many, most)
    while many - few > max(1, many // 16):
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def _recall(found_QK: NDArray[np.float32], truth_QK: NDArray[np.float32]) -> float:
    """Share of the true neighbours that were found, by similarity: equal ones are as good as each other."""
    worst_Q1 = truth_QK[:, -1:]
    return float((found_QK >= worst_Q1 - 1e-6).sum() / truth_QK.size)
