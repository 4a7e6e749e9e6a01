"""A gallery on disk: one SQLite file of vectors and what is known about their pictures; no pictures in it.

Every change is one transaction, so that after a kill the file is as before or after it. Deleted rows are overwritten.
Shapes: N pictures, D embedding.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.run.files import temporary
from dnas.serve.conditions import Condition, column
from dnas.serve.graph import Graph
from dnas.serve.interface import Interface, interface_of
from dnas.serve.listing import Stamp, Value
from dnas.serve.network import Vectors

NAME = "gallery.sqlite"
MARK = 0x444E4153
"""SQLite's application id of our files."""
TABLES = {
    "about": "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "pictures": "CREATE TABLE pictures (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,"
    " changed INTEGER NOT NULL, columns TEXT NOT NULL, vector BLOB NOT NULL)",
    "graph": "CREATE TABLE graph (id INTEGER PRIMARY KEY, entry INTEGER NOT NULL, ef INTEGER NOT NULL,"
    " recall REAL NOT NULL, pictures INTEGER NOT NULL, last INTEGER NOT NULL)",
    "nodes": "CREATE TABLE nodes (id INTEGER PRIMARY KEY, ids BLOB NOT NULL, levels BLOB NOT NULL,"
    " neighbours BLOB NOT NULL)",
}
FAILED = ("full", "readonly", "disk I/O", "unable to open")
"""Words of SQLite's errors that say nothing of the file's content."""
CHUNK = 4096
"""Rows read at a time."""
NODES = 100_000
"""Of the approximate index, in one row: some 26 MB; SQLite holds 1 GB at most."""


def failed(file: Path, error: Exception) -> UserError:
    """What a gallery's error is, in one line: another writer, a disk, or the file itself."""
    text = str(error)[:200] or type(error).__name__
    if isinstance(error, sqlite3.OperationalError) and "locked" in text:
        return UserError(f"{file}: another process is writing")
    what = isinstance(error, sqlite3.OperationalError) and any(word in text for word in FAILED)
    return UserError(f"{file}: {'cannot be read or written' if what else 'damaged'}: {text}")


@contextmanager
def alone(lock: BaseFileLock) -> Iterator[None]:
    """No other process writes to the gallery of this lock's folder while this lasts.

    Raises:
        UserError: one does.
    """
    try:
        with lock.acquire():
            yield
    except Timeout:
        raise UserError(f"{Path(lock.lock_file).parent}: another process is writing there") from None


def lock_of(folder: Path) -> BaseFileLock:
    return FileLock(folder / ".lock", timeout=0)


def _fill(base: sqlite3.Connection, about: Mapping[str, str]) -> None:
    """An empty file becomes an empty gallery, in one transaction."""
    base.execute("PRAGMA page_size = 8192")
    base.execute("BEGIN IMMEDIATE")
    for table in TABLES.values():
        base.execute(table)
    base.executemany("INSERT INTO about VALUES (?, ?)", {**about, "columns": "[]"}.items())
    base.execute(f"PRAGMA application_id = {MARK}")
    base.execute("COMMIT")


@dataclass(frozen=True)
class Row:
    """A picture of a gallery: where it was, and its columns (identity, camera, time, anything)."""

    path: str
    columns: Mapping[str, Value]


class Store:
    """The file of a gallery. `Store.create` makes one; `writing` is for one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / NAME
        if not self.file.is_file():
            raise UserError(f"{folder}: no gallery there (no {NAME}); make one with dnas index")
        self.lock = lock_of(folder)
        try:
            self.base = sqlite3.connect(self.file, isolation_level=None, timeout=60, check_same_thread=False)
        except sqlite3.Error as error:
            raise failed(self.file, error) from error
        with self._reading():
            for setting in ("trusted_schema = OFF", "cell_size_check = ON", "secure_delete = ON", "synchronous = FULL"):
                self.base.execute(f"PRAGMA {setting}")
            self._check()
            about = dict(self.base.execute("SELECT key, value FROM about"))
            self.interface = interface_of(json.loads(about["interface"]), f"{self.file}: interface")
            self.network = str(about["network"])

    @staticmethod
    def create(folder: Path, interface: Interface, network: str) -> Store:
        """A new, empty gallery; atomic, as all that follows. One that another process has made meanwhile stays.

        Args:
            network: where its network is, relative to the folder.
        """
        file = folder / NAME
        folder.mkdir(parents=True, exist_ok=True)
        with alone(lock_of(folder)):
            if not file.exists():
                with temporary(file) as unfinished:
                    try:
                        with closing(sqlite3.connect(unfinished, isolation_level=None)) as base:
                            _fill(base, {"interface": json.dumps(interface.plain()), "network": network})
                    except sqlite3.Error as error:
                        raise failed(file, error) from error
        return Store(folder)

    def _check(self) -> None:
        """Refuse what is not ours: another program's file, or one with code (triggers, views) in it."""
        mark = self.base.execute("PRAGMA application_id").fetchone()[0]
        found = dict(self.base.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
        if mark != MARK or found != TABLES:
            raise UserError(f"{self.file}: not a gallery of this version")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise failed(self.file, error) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """No other process writes while this lasts.

        Raises:
            UserError: one does.
        """
        with alone(self.lock):
            yield

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self.writing(), self._reading():
            self.base.execute("BEGIN IMMEDIATE")
            try:
                yield self.base
            except BaseException:
                if self.base.in_transaction:  # SQLite ends it itself where the disk is full
                    self.base.execute("ROLLBACK")
                raise
            self.base.execute("COMMIT")

    def __len__(self) -> int:
        with self._reading():
            return int(self.base.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def columns(self) -> list[str]:
        """The names of all columns."""
        with self._reading():
            found = json.loads(self.base.execute("SELECT value FROM about WHERE key = 'columns'").fetchone()[0])
            return [str(name) for name in found]

    def _known(self, what: str, paths: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Path, and what is asked for, of those that are in the gallery."""
        for start in range(0, len(paths), 500):
            part = paths[start : start + 500]
            marks = ",".join("?" * len(part))
            yield from self.base.execute(f"SELECT path, {what} FROM pictures WHERE path IN ({marks})", part).fetchall()

    def stamps(self, paths: Sequence[str]) -> dict[str, Stamp]:
        """Size and time of change of those that are in the gallery."""
        with self._reading():
            return {path: (size, changed) for path, size, changed in self._known("size, changed", paths)}

    def _columns_of(self, rows: Sequence[Row]) -> dict[str, dict[str, Value]]:
        """What is known of those that are in the gallery, by path."""
        known = self._known("columns", [row.path for row in rows])
        return {path: dict(json.loads(text)) for path, text in known}

    def describe(self, rows: Sequence[Row]) -> int:
        """Take columns of pictures that are there in place of what was known of them; of how many that is news."""
        with self._transaction() as base:
            known = self._columns_of(rows)
            news = [row for row in rows if not row.columns.items() <= known.get(row.path, row.columns).items()]
            merged = [(json.dumps({**known[row.path], **row.columns}), row.path) for row in news]
            base.executemany("UPDATE pictures SET columns = ? WHERE path = ?", merged)
            self._name_columns(news)
        return len(news)

    def _name_columns(self, rows: Sequence[Row]) -> None:
        known = dict.fromkeys([*self.columns(), *(name for row in rows for name in row.columns)])
        self.base.execute("UPDATE about SET value = ? WHERE key = 'columns'", (json.dumps([*known]),))

    def add(self, rows: Sequence[Row], stamps: Sequence[Stamp], vectors: Vectors) -> None:
        """Add pictures, or replace those of the same path (of one that is there twice the last counts); vectors (N, D).

        What was known of a file that has not changed stays, but for columns that its row has; another content may be
        somebody else. Ids are above all that the approximate index knows, those of removed pictures too.
        """
        blobs = np.ascontiguousarray(vectors, np.float32)
        with self._transaction() as base:
            last = "SELECT id FROM pictures UNION ALL SELECT last FROM graph"
            first = 1 + int(base.execute(f"SELECT coalesce(max(id), 0) FROM ({last})").fetchone()[0])
            before = self.stamps([row.path for row in rows])
            unchanged = [row for row, own in zip(rows, stamps, strict=True) if before.get(row.path) == own]
            known = self._columns_of(unchanged)
            base.executemany(
                "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (first + k, row.path, *stamp, json.dumps({**known.get(row.path, {}), **row.columns}), blob.data)
                    for k, (row, stamp, blob) in enumerate(zip(rows, stamps, blobs, strict=True))
                ),
            )
            self._name_columns(rows)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove pictures; what they held is overwritten in the file."""
        numbers = [(int(number),) for number in ids]
        with self._transaction() as base:
            base.executemany("DELETE FROM pictures WHERE id = ?", numbers)

    def select(self, where: Sequence[str] = ()) -> NDArray[np.int64]:
        """Ids, ascending, of the pictures that meet all conditions such as camera=3, time>=2024-05-01, path=a.jpg.

        Numbers are compared with numbers and text with text: a column without any number is text, where 2024 comes
        before 2024-05-01. A picture that has something else in the column, or nothing, meets no condition but !=.

        Raises:
            UserError: not a condition, or of a column that is not there.
        """
        terms, bound, known = ["1"], dict[str, Value](), ["path", *self.columns()]
        for number, one in enumerate(Condition.read(text, known) for text in where):
            term, values = one.sql(number, one.may_be_number and self._has_numbers(one.column))
            terms.append(term)
            bound |= values
        with self._reading():
            found = self.base.execute(f"SELECT id FROM pictures WHERE {' AND '.join(terms)} ORDER BY id", bound)
            return np.fromiter((row[0] for row in found), np.int64)

    def _has_numbers(self, name: str) -> bool:
        query = f"SELECT 1 FROM pictures WHERE typeof({column('?')}) IN ('integer', 'real') LIMIT 1"
        with self._reading():
            return self.base.execute(query, (name,)).fetchone() is not None

    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        """The pictures of some ids; those that are there no longer are missing."""
        found: dict[int, Row] = {}
        with self._reading():
            for number in ids:
                query = "SELECT path, columns FROM pictures WHERE id = ?"
                for path, columns in self.base.execute(query, (int(number),)):
                    found[int(number)] = Row(str(path), dict(json.loads(columns)))
        return found

    def read(self, where: Sequence[str] = ()) -> Iterator[Row]:
        """The pictures that meet all conditions, in the order in which they were added."""
        ids = self.select(where)
        for start in range(0, len(ids), CHUNK):
            yield from self.rows(ids[start : start + CHUNK].tolist()).values()

    def vectors(self, ids: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Vectors]:
        """Ids (N), ascending, and vectors (N, D) of all pictures, or of those of `ids`.

        Raises:
            UserError: something else than vectors of this network is there.
        """
        found_N = np.empty(len(self) if ids is None else len(ids), np.int64)
        vectors_ND = np.empty((len(found_N), self.interface.embedding), np.float32)
        with self._reading():
            start = 0
            for part in self._chunks(ids):
                if start + len(part) > len(found_N):
                    break  # added meanwhile by another process
                found_N[start : start + len(part)] = [row[0] for row in part]
                block = np.frombuffer(b"".join(row[1] for row in part), np.float32)
                vectors_ND[start : start + len(part)] = block.reshape(len(part), -1)
                start += len(part)
            found_N, vectors_ND = found_N[:start], vectors_ND[:start]
            lengths = np.linalg.norm(vectors_ND, axis=1)
            wrong = ~np.isfinite(lengths)
            if self.interface.distance == "cosine":
                wrong |= np.abs(lengths - 1) > 1e-3
            if wrong.any():
                raise ValueError(f"{int(wrong.sum())} vectors are not of length 1")
        return found_N, vectors_ND

    def _chunks(self, ids: NDArray[np.int64] | None) -> Iterator[list[tuple[int, bytes]]]:
        if ids is None:
            cursor = self.base.execute("SELECT id, vector FROM pictures ORDER BY id")
            while part := cursor.fetchmany(CHUNK):
                yield part
            return
        for start in range(0, len(ids), 500):
            numbers = ids[start : start + 500].tolist()
            marks = ",".join("?" * len(numbers))
            yield self.base.execute(
                f"SELECT id, vector FROM pictures WHERE id IN ({marks}) ORDER BY id", numbers
            ).fetchall()

    def graph(self) -> Graph | None:
        """The approximate index, if it has been built."""
        with self._reading():
            row = self.base.execute("SELECT entry, ef, recall, pictures FROM graph").fetchone()
            if row is None:
                return None
            parts: list[list[bytes]] = [[], [], []]
            for blobs in self.base.execute("SELECT ids, levels, neighbours FROM nodes ORDER BY id"):
                for part, blob in zip(parts, blobs, strict=True):
                    part.append(blob)
            ids, levels, neighbours = (b"".join(part) for part in parts)
            arrays = np.frombuffer(ids, np.int64), np.frombuffer(levels, np.int32), np.frombuffer(neighbours, np.int32)
            found = Graph(*arrays, int(row[0]), int(row[1]), float(row[2]), int(row[3]))
            found.check()
            return found

    def save_graph(self, graph: Graph) -> None:
        """Replace the approximate index."""
        starts, offsets = range(0, len(graph.ids), NODES), graph.offsets
        with self._transaction() as base:
            base.execute("DELETE FROM graph")
            base.execute("DELETE FROM nodes")
            last = int(np.max(graph.ids)) if graph.pays else 0
            row = (graph.entry, graph.ef, graph.recall, graph.pictures, last)
            base.execute("INSERT INTO graph VALUES (1, ?, ?, ?, ?, ?)", row)
            for start in starts:
                part = slice(start, start + NODES)
                links = graph.neighbours[offsets[start] : offsets[min(start + NODES, len(graph.ids))]]
                blobs = (array.tobytes() for array in (graph.ids[part], graph.levels[part], links))
                base.execute("INSERT INTO nodes (ids, levels, neighbours) VALUES (?, ?, ?)", (*blobs,))
