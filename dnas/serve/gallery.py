"""A gallery that is searched by pictures: `g = dnas.Gallery.open("gallery"); g.find("a.jpg", k=10)`.

Shapes: Q queries, N pictures of the gallery, D embedding, K neighbours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dnas.data.usable import OnBadImage
from dnas.errors import UserError
from dnas.eval.rerank import Reranked
from dnas.run.device import Device
from dnas.run.files import NPZ_ERRORS
from dnas.run.progress import CountProgress
from dnas.serve import nearest
from dnas.serve.graph import Approximate, Graph, build
from dnas.serve.interface import Interface, interface_of
from dnas.serve.listing import Listing, Stamp, Value, list_pictures, stamp, typed
from dnas.serve.load import load
from dnas.serve.nearest import Exact, Nearest
from dnas.serve.network import Embedder, Picture, Vectors
from dnas.serve.store import CHUNK, Row, Store
from dnas.serve.stream import embed_files

CANDIDATES = 200
"""Nearest pictures that re-ranking puts in order."""
BATCH = 64


@dataclass(frozen=True)
class Match:
    """One picture that was found.

    Args:
        path: where it was when it was added.
        similarity: cosine, or minus the euclidean distance, to the query.
        above: it is above the threshold of the network; none where no threshold has been measured.
        columns: what is known about it: identity, camera, time, anything.
    """

    path: str
    similarity: float
    above: bool | None
    columns: Mapping[str, Value]


class Gallery:
    """Pictures of a folder, searched with the network that made its vectors.

    What another process adds is seen by who opens the gallery after that.
    """

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self.store, self.embedder = store, embedder
        embedder.interface.check_same(store.interface, str(store.folder))
        self._loaded: tuple[NDArray[np.int64], Nearest] | None = None

    @staticmethod
    def open(
        path: str | Path,
        network: str | Path | Embedder | None = None,
        device: Device = "auto",
        space: str | None = None,
    ) -> Gallery:
        """A gallery that is there.

        Args:
            network: the one that made it, if it is not where it was: a run folder, an exported file, or loaded. A
                .pt2 file has to be named: it can run code, and where it is says a file that may be a stranger's.
            space: the space of the network, if it is a file of your own.

        Raises:
            UserError: no gallery, a damaged one, or one of another network.
        """
        store = Store(Path(path))
        if not isinstance(network, Embedder):
            if network is None and store.network.endswith(".pt2"):
                raise UserError(
                    f"{path}: made by {store.network}, which can run code: name it yourself (--network FILE)"
                )
            network = load(network or os.path.normpath(Path(path) / store.network), device, space)
        return Gallery(store, network)

    @staticmethod
    def create(path: str | Path, network: Embedder) -> Gallery:
        """The gallery of a folder, made if there is none."""
        where = os.path.relpath(network.network.source, path)
        return Gallery(Store.create(Path(path), network.interface, where), network)

    def __len__(self) -> int:
        return len(self.store)

    def add(
        self, pictures: Sequence[str] | Listing, on_bad_image: OnBadImage = "stop", batch: int = BATCH
    ) -> tuple[int, list[str]]:
        """Add files; of one that is there and has not changed, columns alone are taken; a changed one is replaced.

        What a listing does not say of a picture that is there, as a folder does not, stays as it was.

        Args:
            pictures: files, folders and manifests as of `dnas index`, or a listing of them.

        Returns:
            Of how many there is news: a picture or what is said of it; and the names of those that cannot be read.

        Raises:
            UserError: a file that cannot be read, where that stops; or a name that is not UTF-8, as SQLite's text is.
        """
        listing = pictures if isinstance(pictures, Listing) else list_pictures(pictures)
        with self.store.writing():
            paths, stamps = [os.path.abspath(path) for path in listing.paths], listing.stamps()
            for path in paths:
                _check_name(path)
            known = self.store.stamps(paths)
            last = {path: row for row, path in enumerate(paths)}  # of a path that is there twice the last one counts
            rows = [row for row, path in enumerate(paths) if last[path] == row]
            todo = [row for row in rows if known.get(paths[row]) != stamps[row]]
            news = self._describe(listing, paths, [row for row in rows if known.get(paths[row]) == stamps[row]])
            names, left_out = [paths[row] for row in todo], list[str]()
            batches = [range(len(todo))[start : start + batch] for start in range(0, len(todo), batch)]
            with CountProgress("index", len(paths), len(paths) - len(todo)) as bar:
                for part in embed_files(self.embedder, names, batches, on_bad_image):
                    rows = [todo[row] for row in part.rows]
                    found = [Row(paths[row], _columns(listing, row)) for row in rows]
                    self.add_vectors(found, part.vectors, [stamps[row] for row in rows])
                    left_out += [names[row] for row in part.bad]
                    bar.advance(len(part.rows) + len(part.bad))
        return len(todo) - len(left_out) + news, left_out

    def _describe(self, listing: Listing, paths: Sequence[str], there: Sequence[int]) -> int:
        """Take what is said of the pictures that are there; of how many that is news."""
        if not listing.columns:
            return 0
        parts = (there[start : start + CHUNK] for start in range(0, len(there), CHUNK))
        return sum(self.store.describe([Row(paths[row], _columns(listing, row)) for row in part]) for part in parts)

    def add_vectors(self, rows: Sequence[Row], vectors: Vectors, stamps: Sequence[Stamp] | None = None) -> None:
        """Add vectors (N, D) that this network made; of files with these stamps, as they are now without."""
        if vectors.shape != (len(rows), self.store.interface.embedding) or not np.isfinite(vectors).all():
            raise UserError(f"vectors: found shape {vectors.shape} or numbers that are not finite")
        for row in rows:
            _check_name(row.path)
        if rows:
            self.store.add(rows, [stamp(row.path) for row in rows] if stamps is None else stamps, vectors)
        self._loaded = None

    def remove(self, where: Sequence[str]) -> int:
        """Remove the pictures that meet all conditions (`camera=3`, `time<2024-05-01`, `path=...`); says how many."""
        with self.store.writing():
            ids = self.store.select(where)
            self.store.remove(ids)
        self._loaded = None
        return len(ids)

    def rows(self, where: Sequence[str] = ()) -> Iterator[Row]:
        """What is in it."""
        return self.store.read(where)

    def settle(self) -> Graph | None:
        """Build the approximate index, or extend it, if the gallery has become large or has changed much since.

        Returns:
            What was built.
        """
        if len(self) <= nearest.MOST_EXACT:
            return None
        with self.store.writing():
            graph = self.store.graph()
            if graph is not None and not graph.stale(self.store.select()):
                return None
            ids, vectors = self.store.vectors()
            built = build(ids, vectors, self.store.interface.distance, graph)
            self.store.save_graph(built)
        self._loaded = None
        return built

    def find(
        self,
        pictures: Picture | Sequence[Picture],
        k: int = 10,
        where: Sequence[str] = (),
        rerank: bool = False,
    ) -> list[list[Match]]:
        """The k most similar pictures for each query, the nearest first; fewer where there are fewer.

        Args:
            pictures: one or several of what `Embedder.embed` takes.
            where: conditions on the pictures that may be found, such as camera=3, time>=2024-05-01.
            rerank: put the nearest 200 in order by k-reciprocal re-ranking (cosine only).
        """
        return self.find_vectors(self.embedder.embed(pictures), k, where, rerank)

    def find_vectors(
        self, queries_QD: Vectors, k: int = 10, where: Sequence[str] = (), rerank: bool = False
    ) -> list[list[Match]]:
        """`find` for vectors of this network."""
        if k < 1:
            raise UserError(f"k: found {k}, allowed: 1 or more")
        if rerank and self.store.interface.distance != "cosine":
            raise UserError(f"rerank: found with distance {self.store.interface.distance}, allowed with: cosine")
        ids_N, index = self._index()
        allowed = np.flatnonzero(np.isin(ids_N, self.store.select(where))) if where else None
        if allowed is not None and isinstance(index, Approximate) and len(allowed) <= nearest.MOST_EXACT:
            # few are left: they are searched exactly
            ids_N, vectors = self.store.vectors(ids_N[allowed])
            index, allowed = Exact(vectors, self.store.interface.distance), None
        similar_QK, place_QK = index.search(queries_QD, max(k, CANDIDATES) if rerank else k, allowed)
        if rerank and place_QK.shape[1] > 1:
            similar_QK, place_QK = self._reranked(queries_QD, similar_QK, place_QK, ids_N)
        similar_QK, place_QK = similar_QK[:, :k], place_QK[:, :k]
        rows = self.store.rows(np.unique(ids_N[place_QK[place_QK >= 0]]).tolist())
        return [
            [
                self._match(rows[int(ids_N[place])], float(value))
                for value, place in zip(values, places, strict=True)
                if place >= 0 and int(ids_N[place]) in rows
            ]
            for values, places in zip(similar_QK, place_QK, strict=True)
        ]

    def _match(self, row: Row, similarity: float) -> Match:
        threshold = self.embedder.interface.threshold
        return Match(row.path, similarity, None if threshold is None else similarity >= threshold, row.columns)

    def _index(self) -> tuple[NDArray[np.int64], Nearest]:
        """Ids and vectors, read when they are first needed and after a change."""
        if self._loaded is None:
            distance = self.store.interface.distance
            ids_N, vectors_ND = self.store.vectors()
            graph = self.store.graph() if len(ids_N) > nearest.MOST_EXACT else None
            if graph is None or not graph.pays:
                self._loaded = ids_N, Exact(vectors_ND, distance)
            else:
                self._loaded = ids_N, Approximate(graph, ids_N, vectors_ND, distance)
        return self._loaded

    def _reranked(
        self,
        queries_QD: Vectors,
        similar_QK: NDArray[np.float32],
        place_QK: NDArray[np.int64],
        ids_N: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Every query's candidates in the order of their re-ranked distances."""
        orders = []
        for query, places in zip(queries_QD, place_QK, strict=True):
            there = places[places >= 0]
            ids, vectors = self.store.vectors(np.sort(ids_N[there]))
            candidates = vectors[np.searchsorted(ids, ids_N[there])]
            k1 = min(20, max(1, len(there) - 1))
            distances = Reranked(torch.from_numpy(query[None]), torch.from_numpy(candidates), k1).rows(slice(0, 1))[0]
            order = np.argsort(distances.numpy(), kind="stable")
            orders.append(np.concatenate([order, np.arange(len(there), len(places))]))
        order_QK = np.stack(orders)
        return np.take_along_axis(similar_QK, order_QK, 1), np.take_along_axis(place_QK, order_QK, 1)


def _columns(listing: Listing, row: int) -> dict[str, Value]:
    return {name: values[row] for name, values in listing.columns.items() if values[row] != ""}


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}: its name is not UTF-8, which a gallery needs: rename it") from None


def read_vectors(file: Path) -> tuple[Interface, list[Row], list[Stamp], Vectors]:
    """What `dnas embed` wrote: the network's interface, the pictures, the stamps of their files, their vectors (N, D).

    Of a picture that is there twice the last one counts. Without stamps, as of older files, nothing is known of the
    picture's file: `dnas index` of it embeds it again.

    Raises:
        UserError: not such a file.
    """
    try:
        with np.load(file, allow_pickle=False) as found:
            interface = interface_of(json.loads(str(found["network"][0])), str(file))
            paths, vectors = found["paths"], found["vectors"]
            stamps = found["stamps"] if "stamps" in found else np.zeros((paths.size, 2), np.int64)
            folder = str(found["folder"][0]) if "folder" in found else ""
            names = [name for name in found.files if name.startswith("column ")]
            columns = {name.removeprefix("column "): found[name] for name in names}
    except NPZ_ERRORS as error:
        raise UserError(f"{file}: not a file of dnas embed ({str(error)[:200]})") from error
    whole = vectors.dtype == np.float32 and vectors.shape == (paths.size, interface.embedding)
    whole &= stamps.dtype == np.int64 and stamps.shape == (paths.size, 2)
    if not whole or any(values.shape != (paths.size,) for values in (paths, *columns.values())):
        raise UserError(f"{file}: not a file of dnas embed (its arrays do not fit each other)")
    full = [os.path.abspath(os.path.join(folder, str(path))) for path in paths]
    kept = sorted({path: k for k, path in enumerate(full)}.values())
    rows = [Row(full[k], {n: typed(str(v[k])) for n, v in columns.items() if str(v[k])}) for k in kept]
    pairs = [(size, changed) for size, changed in stamps[kept].tolist()]
    return interface, rows, pairs, vectors if len(kept) == len(full) else vectors[kept]
