"""The galleries, vectors and sidecars that `tools/fuzz.py` damages."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing import mutated
from hypothesis import strategies as st

from dnas.serve import nearest
from dnas.serve.embed import embed_listing
from dnas.serve.gallery import Gallery, read_vectors
from dnas.serve.interface import Interface
from dnas.serve.listing import Listing
from dnas.serve.network import Embedder, Pixels, Vectors
from dnas.serve.store import NAME, Row

COUNT, DIM = 60, 8
CELLS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=40)
"""What SQLite can hold, whatever a column is for."""
WHERE: dict[str, tuple[str, list[Any], list[str]]] = {
    "about": ("key", ["interface", "network", "columns"], ["key", "value"]),
    "pictures": ("id", [1, 7, COUNT], ["id", "path", "size", "changed", "columns", "vector"]),
    "graph": ("id", [1], ["id", "entry", "ef", "recall", "pictures", "last"]),
    "nodes": ("id", [1], ["id", "ids", "levels", "neighbours"]),
}
"""Keys, some of their values, and columns of every table."""


def sidecar() -> Interface:
    """Of a network with everything that can be said about one."""
    return Interface(
        "0" * 64, "net", 32, 16, DIM, "cosine", False, threshold=0.5, false_share=0.001, genotype={"stage.1": "conv"},
        data={"name": "x", "sha256": "0" * 64}, versions={"torch": "2.6"},
    )  # fmt: skip


class Colours:
    """A network that costs nothing: a direction for every mean colour."""

    interface, source = sidecar(), Path("net")

    def stream(self, batches: Iterator[Pixels]) -> Iterator[Vectors]:
        for pixels in batches:
            angle = pixels.reshape(len(pixels), -1).mean(1, dtype=np.float32)[:, None] * np.arange(1, DIM + 1) / 255
            yield unit(np.cos(angle).astype(np.float32))


def unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def spliced(numbers: bytes, place: int, number: int) -> bytes:
    """Another number in one place of an array of the approximate index."""
    found = np.frombuffer(numbers, np.int32).copy()
    found[place % len(found)] = number
    return bytes(found.tobytes())


class Galleries:
    """A small gallery with an approximate index, and the file of `dnas embed` that it was filled from."""

    def __init__(self, folder: Path) -> None:
        nearest.MOST_EXACT = COUNT // 2
        self.folder, self.embedder = folder, Embedder(Colours())
        rng = np.random.default_rng(0)
        self.queries = unit(rng.normal(size=(3, DIM)).astype(np.float32))
        gallery = Gallery.create(folder, self.embedder)
        rows = [Row(f"/p/{k}.jpg", {"identity": k // 4, "time": f"2024-05-{k % 30 + 1:02}"}) for k in range(COUNT)]
        gallery.add_vectors(rows, unit(rng.normal(size=(COUNT, DIM)).astype(np.float32)))
        assert gallery.settle() is not None
        gallery.store.base.close()
        self.whole = (folder / NAME).read_bytes()
        pictures = sorted((folder.parent / "data/query").glob("*.jpg"))[:5]
        columns: dict[str, list[str | int | float]] = {"identity": [7, "x", "", 3, 4]}
        embed_listing(self.embedder, Listing([str(file) for file in pictures], columns), folder / "v.npz")
        self.vectors = (folder / "v.npz").read_bytes()

    @st.composite
    @staticmethod
    def changed(draw: Callable[[Any], Any]) -> list[tuple[str, tuple[Any, ...]]]:
        """Statements that put something else in some places."""
        found = []
        for _ in range(draw(st.integers(1, 3))):
            table = draw(st.sampled_from(sorted(WHERE)))
            key, keys, names = WHERE[table]
            where, name = draw(st.sampled_from(keys)), draw(st.sampled_from(names))
            if table == "nodes" and name != "id" and draw(st.booleans()):
                place, number = draw(st.integers(0, 2**20)), draw(st.integers(-2, COUNT + 1))
                found.append((f"UPDATE nodes SET {name} = spliced({name}, ?, ?)", (place, number)))
                continue
            value = draw(CELLS)
            if where == "interface" and draw(st.booleans()):
                value = json.dumps(draw(mutated(sidecar().plain())))
            elif name == "columns" or where == "columns":
                value = json.dumps(draw(mutated({"identity": 3, "time": "x"} if name == "columns" else ["identity"])))
            found.append((f"UPDATE OR IGNORE {table} SET {name} = ? WHERE {key} = ?", (value, where)))
        return found

    def case(self, content: bytes | list[tuple[str, tuple[Any, ...]]]) -> Callable[[], object]:
        """Reads a gallery of these bytes, or with these changes."""
        file = self.folder / NAME
        file.write_bytes(self.whole if isinstance(content, list) else content)
        if isinstance(content, list):
            base = sqlite3.connect(file)
            base.create_function("spliced", 3, spliced)
            for statement, values in content:
                with suppress(sqlite3.Error):  # a number, or a name that is there already: not even SQLite takes it
                    base.execute(statement, values)
            base.commit()
            base.close()
        return self.search

    def search(self) -> None:
        """Everything that reads: as `dnas find`, with a condition and without, and `dnas gallery list`."""
        gallery = Gallery.open(self.folder, self.embedder)
        try:
            known: Mapping[str, object] = dict.fromkeys(gallery.store.columns())
            for where in ([], ["identity>3"] if "identity" in known else ["path!=x"]):
                gallery.find_vectors(self.queries, 5, where, rerank=bool(where))
            list(gallery.rows())
        finally:
            gallery.store.base.close()

    def add(self, file: Path) -> None:
        """As `dnas index` takes the file of `dnas embed`."""
        interface, rows, stamps, vectors = read_vectors(file)
        self.embedder.interface.check_same(interface, str(file))
        (self.folder / NAME).write_bytes(self.whole)
        Gallery.open(self.folder, self.embedder).add_vectors(rows, vectors, stamps)
