"""The approximate index: beside exact search in plain loops, over adding and removing, and damaged."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.eval.embed import Distance
from dnas.serve import graph as graphs
from dnas.serve import nearest, store
from dnas.serve.gallery import Gallery
from dnas.serve.graph import Approximate, build, no_graph
from dnas.serve.network import Vectors
from dnas.serve.store import Row
from tests.serve.stub import stub

DIM = 12


def clustered(count: int, dim: int = DIM, seed: int = 0) -> Vectors:
    """Unit vectors of people: about five around each centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count // 5 + 1, dim))
    vectors = centres[rng.integers(0, len(centres), count)] + 0.3 * rng.normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(folder: Path, vectors: Vectors) -> Gallery:
    gallery = Gallery.create(folder, stub())
    add(gallery, vectors, 0)
    return gallery


def add(gallery: Gallery, vectors: Vectors, first: int) -> None:
    rows = [Row(f"/p/{k}.jpg", {"camera": k % 7, "half": k % 2}) for k in range(first, first + len(vectors))]
    gallery.add_vectors(rows, vectors)


def recall(gallery: Gallery, vectors: Vectors, kept: NDArray[np.int64], where: Sequence[str] = ()) -> float:
    """Share of the ten nearest of strangers' vectors that a gallery of /p/<kept>.jpg finds."""
    queries = clustered(100, seed=1)
    truth = np.argsort(-queries @ vectors[kept].T, axis=1)[:, :10]
    found = Gallery.open(gallery.store.folder, stub()).find_vectors(queries, 10, where)
    pairs = zip(truth, found, strict=True)
    return float(np.mean([len({f"/p/{kept[k]}.jpg" for k in row} & {m.path for m in ms}) / 10 for row, ms in pairs]))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_exact_and_graph_agree_with_plain_loops(distance: Distance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything looked at: both are the sorted list, with some positions allowed, after adding and removing."""
    monkeypatch.setattr(nearest, "MOST_NUMBERS", 700)
    vectors, queries = clustered(200, 6) * (1 if distance == "cosine" else 2), clustered(9, 6, seed=1)
    ids = 3 * np.arange(200) + 1
    early = np.arange(150)
    built = replace(build(ids[early], vectors[early], distance), ef=graphs.EFS[-1])
    kept = np.delete(np.arange(200), [3, 17, 149, 199])
    searched = {
        "exact": (nearest.Exact(vectors, distance), np.arange(200)),
        "later ones": (Approximate(built, ids, vectors, distance), np.arange(200)),
        "removed ones": (Approximate(built, ids[kept], vectors[kept], distance), kept),
    }
    for name, (index, there) in searched.items():
        for among in (None, np.arange(0, len(there), 3), np.arange(160, len(there)), np.arange(0)):
            everything = np.arange(len(there)) if among is None else among
            for row in index.search(queries[:2], 250, among)[1]:  # more than there are
                assert sorted(row.tolist()) == everything.tolist(), name
            values, places = index.search(queries, 5, among)
            for query, row, near in zip(queries, places, values, strict=True):
                all_of_them = []
                for k in everything:
                    vector = vectors[there[k]]
                    dot, apart = float(query @ vector), -float(np.linalg.norm(query - vector))
                    all_of_them.append((dot if distance == "cosine" else apart, int(k)))
                expected = sorted(all_of_them, reverse=True)[:5]
                assert row.tolist() == [k for _, k in expected], name
                assert near.tolist() == pytest.approx([value for value, _ in expected], abs=1e-3)


def test_many_neighbours_are_found_as_few_are() -> None:
    """How many candidates are kept is measured for ten; for two hundred it has to be more."""
    vectors, queries = clustered(4000), clustered(50, seed=1)
    index = Approximate(build(np.arange(4000), vectors, "cosine"), np.arange(4000), vectors, "cosine")
    assert index.ef < 200
    truth = nearest.Exact(vectors, "cosine").search(queries, 200)[0]
    found = index.search(queries, 200)[0]
    assert (found >= truth[:, -1:] - 1e-6).mean() > 0.995


def test_a_gallery_that_grows_and_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built above the limit; good while pictures come and go, and with filters; extended, and built anew."""
    monkeypatch.setattr(nearest, "MOST_EXACT", 1500)
    monkeypatch.setattr(store, "NODES", 700)
    vectors = clustered(3000)
    gallery = filled(tmp_path / "gallery", vectors[:1000])
    assert gallery.settle() is None
    add(gallery, vectors[1000:2800], 1000)
    first = gallery.settle()
    assert first is not None
    assert graphs.RECALL <= first.recall <= 1
    assert gallery.settle() is None

    gallery.remove(["path=/p/2799.jpg"])  # the newest: its id must not become another's
    add(gallery, vectors[2800:2900], 2800)
    gallery.remove(["path=/p/5.jpg"])
    kept = np.delete(np.arange(2900), [5, 2799])
    assert gallery.settle() is None
    assert recall(gallery, vectors, kept) > 0.99
    assert recall(gallery, vectors, kept[kept % 7 == 3], ["camera=3"]) == 1  # few are left: exact
    monkeypatch.setattr(nearest, "MOST_EXACT", 1000)
    assert recall(gallery, vectors, kept[kept % 2 == 1], ["half=1"]) > 0.98

    add(gallery, vectors[2900:], 2900)
    kept = np.delete(np.arange(3000), [5, 2799])
    second = gallery.settle()
    assert second is not None
    assert len(second.ids) == 3000  # those that are gone are still walked over
    assert second.levels[:2800].tolist() == first.levels.tolist()
    assert recall(gallery, vectors, kept) > 0.99

    gallery.remove(["camera<2"])
    kept = kept[kept % 7 >= 2]
    assert recall(gallery, vectors, kept) > 0.98
    third = gallery.settle()
    assert third is not None
    assert len(third.ids) == len(kept) == len(gallery)
    assert recall(gallery, vectors, kept) > 0.99


def test_a_graph_that_does_not_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not kept, nor tried again before the gallery is much larger; all vectors are looked at, exactly."""
    monkeypatch.setattr(nearest, "MOST_EXACT", 200)
    monkeypatch.setattr(graphs, "RECALL", 1.1)
    vectors = clustered(1250)
    gallery = filled(tmp_path / "gallery", vectors[:300])
    built = gallery.settle()
    assert built is not None
    assert not built.pays
    assert built.recall > 0.9
    monkeypatch.setattr("dnas.serve.gallery.Approximate", None)
    assert recall(gallery, vectors, np.arange(300)) == 1
    add(gallery, vectors[300:1150], 300)
    assert gallery.settle() is None
    add(gallery, vectors[1150:], 1150)
    assert gallery.settle() is not None


def test_what_would_lead_astray_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links of a stranger's file are followed without looking: every one is checked before."""
    monkeypatch.setattr(nearest, "MOST_EXACT", 1000)
    vectors = clustered(1500)
    gallery = filled(tmp_path / "gallery", vectors)
    good = gallery.settle()
    assert good is not None
    good.check()
    no_graph().check()
    high, low = int(good.levels.argmax()), int(good.levels.argmin())
    assert good.levels[high] > good.levels[low]

    def changed(array: NDArray[np.int32], place: int, value: int) -> NDArray[np.int32]:
        found = array.copy()
        found[place] = value
        return found

    above = int(good.offsets[high]) + 2 * graphs.LINKS  # the first link of the second level
    for bad in (
        replace(good, ids=np.maximum(good.ids, 3)),
        replace(good, ids=good.ids[:-1]),
        replace(good, levels=changed(good.levels, low, 0)),
        replace(good, levels=changed(good.levels, low, 2)),
        replace(good, levels=changed(good.levels, low, graphs.MOST_LEVELS + 1)),
        replace(good, neighbours=good.neighbours[:-1]),
        replace(good, neighbours=changed(good.neighbours, 7, 1500)),
        replace(good, neighbours=changed(good.neighbours, 7, -2)),
        replace(good, neighbours=changed(good.neighbours, above, low)),
        replace(good, entry=low),
        replace(good, entry=1500),
        replace(good, ef=0),
        replace(good, recall=float("nan")),
    ):
        with pytest.raises(ValueError, match="its graph has"):
            bad.check()
    content = gallery.store.file.read_bytes()
    for change in (
        "UPDATE nodes SET neighbours = zeroblob(48)",
        "UPDATE nodes SET levels = 'x'",
        "DELETE FROM nodes",
        "UPDATE graph SET entry = 'x'",
    ):
        gallery.store.file.write_bytes(content)
        base = sqlite3.connect(gallery.store.file)
        base.execute(change)
        base.commit()
        base.close()
        again = Gallery.open(gallery.store.folder, stub())
        if change.startswith("DELETE"):  # none at all: searched exactly
            assert again.find_vectors(vectors[:1], 1)[0][0].path == "/p/0.jpg"
            continue
        with pytest.raises(UserError, match="damaged") as error:
            again.find_vectors(vectors[:1])
        assert "\n" not in str(error.value)
