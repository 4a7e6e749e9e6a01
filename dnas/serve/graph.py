"""Approximate search: a graph of near vectors (HNSW by FAISS; Malkov and Yashunin, TPAMI 2020, arXiv:1603.09320).

A query walks along the links from the top level down; on the lowest one it keeps the `ef` nearest that it has met. How
large that is, is decided by measuring the recall against exact search.

Shapes: Q queries, N vectors, D embedding, K neighbours; G nodes of the graph, T vectors that are not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnas.eval.embed import Distance
from dnas.run.progress import CountProgress
from dnas.serve.nearest import Exact, Found, library, similarity
from dnas.serve.network import Vectors

LINKS, BUILD_EF = 32, 40
"""Links of a node on each level (twice as many on the lowest one), and `ef` when they are chosen."""
MOST_LEVELS = 6
"""FAISS draws no more with so many links: a share 32^-l of the nodes is on level l."""
EFS = (32, 48, 64, 96, 128, 192, 256, 384, 512)
MOST_EF = 8192
"""With a filter: every step costs time in proportion to it."""
RECALL, TRIED, NEIGHBOURS = 0.998, 1000, 10
"""Least share of the ten nearest that must be found, for this many queries that are not in the graph yet."""
WIDER = 2
"""Candidates for each picture that is asked for, where that is more than the measured `ef`."""
ROWS = 4096
"""Vectors that are copied at a time."""
TAKEN = 20_000
"""Vectors that are taken in between two signs of progress."""
LATE, GONE, GROWN = 0.05, 0.2, 4
"""Share of the nodes that may be added later before they are taken in, and that may be removed before all is built
again; times as many pictures before a graph is tried again that did not pay."""


@dataclass(frozen=True)
class Graph:
    """Links between the pictures of a gallery.

    Args:
        ids: (G) of the pictures; none: a graph does not pay, see `recall`.
        levels: (G) levels that a node is on, 1 or more.
        neighbours: nodes that are linked to, -1: none; for each node 2 LINKS of the lowest level, then LINKS of each.
        entry: node to begin at, on the highest level.
        ef: candidates that are kept while walking.
        recall: share of the ten nearest that this finds, measured when it was built.
        pictures: how many there were then.
    """

    ids: NDArray[np.int64]
    levels: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    entry: int
    ef: int
    recall: float
    pictures: int

    @property
    def pays(self) -> bool:
        """Whether it finds enough; otherwise all vectors are looked at."""
        return len(self.ids) > 0

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where the neighbours of each node begin, and the end of all (G + 1)."""
        counts = LINKS * (self.levels.astype(np.int64) + 1)
        return np.concatenate([[0], np.cumsum(counts)])

    def check(self) -> None:
        """FAISS follows links without looking: whatever would lead it out of its arrays is refused.

        Raises:
            ValueError: it is no graph.
        """
        count = len(self.ids)
        if not 1 <= self.ef <= EFS[-1] or not 0 <= self.recall <= 1 or len(self.levels) != count:
            raise ValueError("its graph has wrong settings or levels")
        if not count:
            return
        if len(np.unique(self.ids)) < count or np.min(self.levels) < 1 or np.max(self.levels) > MOST_LEVELS:
            raise ValueError("its graph has wrong nodes")
        offsets = self.offsets
        if len(self.neighbours) != offsets[-1] or np.min(self.neighbours) < -1 or np.max(self.neighbours) >= count:
            raise ValueError("its graph has links to nowhere")
        if not 0 <= self.entry < count or self.levels[self.entry] != np.max(self.levels):
            raise ValueError("its graph has no beginning")
        for level in range(1, int(np.max(self.levels))):
            slots = offsets[:-1][self.levels > level, None] + LINKS * (level + 1) + np.arange(LINKS)
            near = self.neighbours[slots]
            if (self.levels[near[near >= 0]] <= level).any():
                raise ValueError("its graph has links between levels")

    def stale(self, ids_N: NDArray[np.int64]) -> bool:
        """Whether so many of these pictures were added later, or so many others are gone, that it wants building."""
        if not self.pays:
            return len(ids_N) >= GROWN * self.pictures
        kept = self.kept(ids_N)
        return len(ids_N) - kept > LATE * len(self.ids) or self.worn(ids_N)

    def worn(self, ids_N: NDArray[np.int64]) -> bool:
        """Whether too many of its nodes are none of these pictures."""
        return len(self.ids) - self.kept(ids_N) > GONE * len(self.ids)

    def kept(self, ids_N: NDArray[np.int64]) -> int:
        return int((positions(self.ids, ids_N) >= 0).sum())


def no_graph(recall: float = 0, pictures: int = 0) -> Graph:
    """Without a node: the beginning of one, or what is left of one that does not pay."""
    none = np.empty(0, np.int32)
    return Graph(np.empty(0, np.int64), none, none, -1, EFS[-1], recall, pictures)


class Approximate:
    """Nodes of a graph, by walking; pictures that are not in it, one by one."""

    def __init__(self, graph: Graph, ids_N: NDArray[np.int64], vectors_ND: Vectors, distance: Distance) -> None:
        self.distance, self.ef, self.ids_G = distance, graph.ef, graph.ids
        self.position_G = positions(graph.ids, ids_N)
        self.there_G = self.position_G >= 0
        self.index = restored(graph, vectors_ND, self.position_G, distance)
        late_N = np.ones(len(ids_N), np.bool_)
        late_N[self.position_G[self.there_G]] = False
        self.tail_T = np.flatnonzero(late_N)
        self.tail = Exact(vectors_ND if late_N.all() else vectors_ND[self.tail_T], distance)

    def search(self, queries_QD: Vectors, k: int, allowed: NDArray[np.int64] | None = None) -> Found:
        usable_G, usable_T = self.there_G, None
        if allowed is not None:
            allowed_N = np.zeros(len(self.tail_T) + int(np.count_nonzero(usable_G)), np.bool_)
            allowed_N[allowed] = True
            usable_G = usable_G & allowed_N[self.position_G]
            usable_T = np.flatnonzero(allowed_N[self.tail_T])
        values, nodes = self._walk(queries_QD, k, usable_G)
        late, places = self.tail.search(queries_QD, k, usable_T)
        values = np.concatenate([np.where(nodes < 0, -np.inf, values), late], axis=1, dtype=np.float32)
        place = np.concatenate([np.where(nodes < 0, -1, self.position_G[nodes]), self.tail_T[places]], axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(values, order, 1), np.take_along_axis(place, order, 1)

    def _walk(self, queries_QD: Vectors, k: int, usable_G: NDArray[np.bool_]) -> Found:
        """Similarities and nodes, of those that may be found; the others are walked over."""
        faiss = library()
        count = int(np.count_nonzero(usable_G))
        if not count:
            return np.empty((len(queries_QD), 0), np.float32), np.empty((len(queries_QD), 0), np.int64)
        ef = max(self.ef, WIDER * k)
        settings = {"efSearch": min(math.ceil(ef * len(usable_G) / count), MOST_EF)}
        if count < len(usable_G):
            settings["sel"] = faiss.IDSelectorBitmap(np.packbits(usable_G, bitorder="little"))
        queries = np.ascontiguousarray(queries_QD, np.float32)
        values, nodes = self.index.search(queries, min(k, count), params=faiss.SearchParametersHNSW(**settings))
        return similarity(values, self.distance, 1), nodes

    def extend(self, ids_N: NDArray[np.int64], vectors_ND: Vectors, late_L: NDArray[np.int64]) -> None:
        """Take in some (L) that are not in the graph yet."""
        with CountProgress("graph", len(late_L)) as bar:
            for start in range(0, len(late_L), TAKEN):
                part = late_L[start : start + TAKEN]
                self.index.add(np.ascontiguousarray(vectors_ND[part]))
                bar.advance(len(part))
        self.ids_G = np.concatenate([self.ids_G, ids_N[late_L]])
        self.position_G = np.concatenate([self.position_G, late_L])
        self.there_G = self.position_G >= 0
        self.tail_T = np.setdiff1d(self.tail_T, late_L, assume_unique=True)
        self.tail = Exact(vectors_ND[self.tail_T], self.distance)

    def graph(self, recall: float, pictures: int) -> Graph:
        """As it is now."""
        faiss, hnsw = library(), self.index.hnsw
        levels, neighbours = (faiss.vector_to_array(array) for array in (hnsw.levels, hnsw.neighbors))
        return Graph(self.ids_G, levels, neighbours, int(hnsw.entry_point), self.ef, recall, pictures)


def positions(ids_G: NDArray[np.int64], ids_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of some ids is among others that are ascending; -1 where it is not."""
    place_G = np.searchsorted(ids_N, ids_G)
    there_G = place_G < len(ids_N)
    there_G[there_G] = ids_N[place_G[there_G]] == ids_G[there_G]
    return np.where(there_G, place_G, -1)


def restored(graph: Graph, vectors_ND: Vectors, position_G: NDArray[np.int64], distance: Distance) -> Any:
    """FAISS's own index of these links; a node whose position is -1 has the vector zero."""
    faiss = library()
    dim, count = vectors_ND.shape[1], len(position_G)
    metric = faiss.METRIC_INNER_PRODUCT if distance == "cosine" else faiss.METRIC_L2
    index = faiss.IndexHNSWFlat(dim, LINKS, metric)
    index.hnsw.efConstruction = BUILD_EF
    if not count:
        return index
    flat = faiss.downcast_index(index.storage)
    flat.codes.resize(count * dim * 4)
    index.ntotal = flat.ntotal = count
    stored_GD = faiss.rev_swig_ptr(flat.get_xb(), count * dim).reshape(count, dim)
    for start in range(0, count, ROWS):  # in place: a second copy of a million vectors is 2 GB
        part = position_G[start : start + ROWS]
        stored_GD[start : start + ROWS] = np.where(part[:, None] >= 0, vectors_ND[part], 0)
    faiss.copy_array_to_vector(np.ascontiguousarray(graph.levels), index.hnsw.levels)
    faiss.copy_array_to_vector(graph.offsets.astype(np.uint64), index.hnsw.offsets)
    faiss.copy_array_to_vector(np.ascontiguousarray(graph.neighbours), index.hnsw.neighbors)
    index.hnsw.entry_point, index.hnsw.max_level = graph.entry, int(np.max(graph.levels)) - 1
    return index


def build(
    ids_N: NDArray[np.int64], vectors_ND: Vectors, distance: Distance, known: Graph | None = None, seed: int = 0
) -> Graph:
    """A graph of all these pictures, with the smallest `ef` of EFS that finds enough; `no_graph` where none does.

    Args:
        known: one of some of them, and of few others, that is extended; otherwise all is built anew.
    """
    if known is None or not known.pays or known.worn(ids_N):
        known = no_graph()
    found = Approximate(known, ids_N, vectors_ND, distance)
    late = np.random.default_rng(seed).permutation(found.tail_T)
    tried = late[: min(TRIED, len(late) // 2)]  # held out: what is in the graph is found more easily
    found.extend(ids_N, vectors_ND, np.sort(late[len(tried) :]))
    truth = Exact(vectors_ND, distance).search(vectors_ND[tried], NEIGHBOURS + 1)[0]
    recall = 0.0
    for ef in EFS:
        found.ef = ef
        recall = _recall(found.search(vectors_ND[tried], NEIGHBOURS + 1)[0], truth)
        if recall >= RECALL:
            found.extend(ids_N, vectors_ND, np.sort(tried))
            return found.graph(recall, len(ids_N))
    return no_graph(recall, len(ids_N))


def _recall(found_QK: NDArray[np.float32], truth_QK: NDArray[np.float32]) -> float:
    """Share of the true neighbours that were found, but for the first, which is the query itself.

    By similarity: equal ones are as good as each other.
    """
    worst_Q1 = truth_QK[:, -1:]
    return float((found_QK[:, 1:] >= worst_Q1 - 1e-6).sum() / truth_QK[:, 1:].size)
