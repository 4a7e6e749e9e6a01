"""A gallery on disk: what is added is found, what is removed is gone, and a kill loses nothing."""

import os
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from dnas.errors import UserError
from dnas.serve import nearest
from dnas.serve.embed import embed_listing
from dnas.serve.gallery import Gallery, read_vectors
from dnas.serve.listing import Listing, list_pictures
from dnas.serve.store import NAME, Row, Store
from tests.serve.stub import stub


@pytest.fixture
def listing(pedestrians: Path) -> Listing:
    return list_pictures([str(pedestrians / name) for name in ("query", "bounding_box_test")], named=True)


@pytest.fixture
def gallery(listing: Listing, tmp_path: Path) -> Gallery:
    found = Gallery.create(tmp_path / "gallery", stub())
    assert found.add(listing) == (len(listing), [])
    return found


def test_finds_as_plain_loops_do(gallery: Gallery, listing: Listing) -> None:
    vectors = {os.path.abspath(path): stub().embed(path)[0] for path in listing.paths}
    query = listing.paths[3]
    [found] = gallery.find(query, k=5)
    own = stub().embed(query)[0]
    expected = sorted(((float(own @ vector), path) for path, vector in vectors.items()), reverse=True)[:5]
    assert [match.path for match in found] == [path for _, path in expected]
    assert [match.similarity for match in found] == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert [match.above for match in found] == [value >= 0.9 for value, _ in expected]
    assert found[0].columns["identity"] == int(Path(query).name[:4])
    several = gallery.find(listing.paths[:2], k=len(listing) + 50)  # more than there are
    assert [len(matches) for matches in several] == [len(listing)] * 2


def test_filters(gallery: Gallery, listing: Listing) -> None:
    wanted = [
        where[2] for where in zip(listing.paths, listing.columns["identity"], listing.columns["camera"], strict=True)
    ]
    assert len([*gallery.rows(["camera=1"])]) == wanted.count(1)
    assert len([*gallery.rows(["camera!=1"])]) == len(wanted) - wanted.count(1)
    [found] = gallery.find(listing.paths[0], 100, ["camera>=2", "camera<3"])
    assert {match.columns["camera"] for match in found} == {2}
    assert gallery.find(listing.paths[0], where=["identity=999"]) == [[]]  # nobody's pictures
    for wrong in ("colour=red", "camera", "camera~1", '"=1', "camera);DROP TABLE pictures;--=1"):
        with pytest.raises(UserError, match="where: found"):
            gallery.find(listing.paths[0], where=[wrong])


def test_same_picture_twice_and_changed_ones(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    """Added again, it is there once; a changed file replaces what was there."""
    assert gallery.add(Listing(listing.paths * 2, {})) == (0, [])
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(Path(listing.paths[0]).read_bytes())
    assert gallery.add([str(copy), str(copy)]) == (1, [])
    copy.write_bytes(Path(listing.paths[1]).read_bytes())
    os.utime(copy, (1, 1))
    assert gallery.add([str(copy)]) == (1, [])
    assert len(gallery) == len(listing) + 1
    [found] = gallery.find(listing.paths[1], k=2)
    assert {match.path for match in found} == {os.path.abspath(listing.paths[1]), str(copy)}
    copy.write_bytes(b"no picture")
    assert gallery.add([str(copy)], "skip") == (0, [str(copy)])


def test_what_is_removed_is_gone_from_the_file(gallery: Gallery, listing: Listing) -> None:
    vector = stub().embed(listing.paths[0])[0].tobytes()
    file = gallery.store.file
    name = os.path.basename(listing.paths[0]).encode()
    assert vector in file.read_bytes()
    assert gallery.remove([f"path={os.path.abspath(listing.paths[0])}"]) == 1
    assert vector not in file.read_bytes()
    assert name not in file.read_bytes()
    who = int(listing.columns["identity"][1])
    count = gallery.remove([f"identity={who}"])
    assert count > 0
    assert len(gallery) == len(listing) - 1 - count
    assert not [row for row in gallery.rows() if row.columns["identity"] == who]


def test_another_network_is_refused(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its vectors are of network aaaaaaaaaaaa"):
        Gallery.open(gallery.store.folder, stub("b"))
    embed_listing(stub("b"), listing, tmp_path / "v.npz")
    interface, _, _ = read_vectors(tmp_path / "v.npz")
    with pytest.raises(UserError, match="they cannot be compared"):
        gallery.embedder.interface.check_same(interface, "v.npz")


def test_vectors_of_embed_are_the_same(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    embed_listing(stub(), listing, tmp_path / "v.npz")
    interface, rows, vectors = read_vectors(tmp_path / "v.npz")
    other = Gallery.create(tmp_path / "other", stub())
    other.embedder.interface.check_same(interface, "v.npz")
    other.add_vectors(rows, vectors)
    assert other.find(listing.paths[:3]) == gallery.find(listing.paths[:3])
    assert other.add(listing) == (0, [])


def test_rerank_is_that_of_the_evaluation(gallery: Gallery, listing: Listing) -> None:
    import torch

    from dnas.eval.rerank import Reranked

    vectors = np.stack([stub().embed(path)[0] for path in listing.paths])
    query = stub().embed(listing.paths[0])
    expected = Reranked(torch.from_numpy(query), torch.from_numpy(vectors)).rows(slice(0, 1))[0].argsort()
    [found] = gallery.find(listing.paths[0], k=8, rerank=True)
    assert [match.path for match in found] == [os.path.abspath(listing.paths[k]) for k in expected[:8]]


def test_one_writer(gallery: Gallery, listing: Listing) -> None:
    second = Gallery.open(gallery.store.folder, stub())
    with gallery.store.writing(), pytest.raises(UserError, match="another process is writing there"):
        second.add(listing)
    assert second.find(listing.paths[0])  # reading goes on


def clustered(count: int, dim: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Unit vectors of people: about five around each centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count // 5 + 1, dim))
    vectors = centres[rng.integers(0, len(centres), count)] + 0.3 * rng.normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_exact_and_cells_agree_with_plain_loops(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells looked at: both are the sorted list of similarities; some queries at a time; positions that may be."""
    monkeypatch.setattr(nearest, "MOST_NUMBERS", 700)
    vectors, queries = clustered(200, 6) * (1 if distance == "cosine" else 2), clustered(9, 6, seed=1)
    allowed = np.arange(0, 200, 3)
    coarse, cells = nearest.build(vectors, distance)  # type: ignore[arg-type]
    whole = nearest.Coarse(coarse.centroids, len(coarse.centroids), 1, 200)
    for index in (nearest.Exact(vectors, distance), nearest.Approximate(vectors, whole, cells, distance)):  # type: ignore[arg-type]
        for among in (None, allowed):
            values, places = index.search(queries, 5, among)
            for query, row, near in zip(queries, places, values, strict=True):
                all_of_them = []
                for k in range(200) if among is None else among:
                    dot, apart = float(query @ vectors[k]), -float(np.linalg.norm(query - vectors[k]))
                    all_of_them.append((dot if distance == "cosine" else apart, int(k)))
                expected = sorted(all_of_them, reverse=True)[:5]
                assert row.tolist() == [k for _, k in expected]
                assert near.tolist() == pytest.approx([value for value, _ in expected], abs=1e-3)


def test_approximate_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built above the limit, as good as it says, kept over adding and removing; filters that leave few are exact."""
    monkeypatch.setattr(nearest, "MOST_EXACT", 1500)
    gallery = Gallery.create(tmp_path / "gallery", stub())
    vectors = clustered(3000, 12)
    rows = [Row(f"/p/{k}.jpg", {"camera": k % 7, "half": k % 2}) for k in range(len(vectors))]
    gallery.add_vectors(rows[:1000], vectors[:1000])
    assert gallery.settle() is None
    gallery.add_vectors(rows[1000:2900], vectors[1000:2900])
    built = gallery.settle()
    assert built is not None
    assert nearest.RECALL <= built.recall <= 1
    assert built.probes < len(built.centroids) // 2
    assert gallery.settle() is None
    gallery.add_vectors(rows[2900:], vectors[2900:])
    gallery.remove(["path=/p/5.jpg"])
    kept = np.delete(np.arange(3000), 5)
    queries = clustered(200, 12, seed=1)
    truth = np.argsort(-queries @ vectors[kept].T, axis=1)[:, :10]
    again = Gallery.open(gallery.store.folder, stub())
    found = again.find_vectors(queries, 10)
    same = [
        len({f"/p/{kept[k]}.jpg" for k in row} & {m.path for m in ms}) for row, ms in zip(truth, found, strict=True)
    ]
    assert np.mean(same) / 10 > 0.95
    for where, share in ((["camera=3"], 7), (["half=1"], 2)):
        part = kept[kept % share == (3 if share == 7 else 1)]
        truth = np.argsort(-queries @ vectors[part].T, axis=1)[:, :10]
        monkeypatch.setattr(nearest, "MOST_EXACT", 1500 if share == 7 else 1000)
        found = again.find_vectors(queries, 10, where)
        same = [
            len({f"/p/{part[k]}.jpg" for k in row} & {m.path for m in ms}) for row, ms in zip(truth, found, strict=True)
        ]
        assert np.mean(same) / 10 > (0.999 if share == 7 else 0.95)


def test_cells_that_do_not_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers in every dimension have no cells: all vectors are looked at, exactly."""
    monkeypatch.setattr(nearest, "MOST_EXACT", 1000)
    gallery = Gallery.create(tmp_path / "gallery", stub())
    vectors = np.random.default_rng(0).normal(size=(1500, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery.add_vectors([Row(f"/p/{k}.jpg", {}) for k in range(len(vectors))], vectors)
    monkeypatch.setattr(nearest, "fewest", lambda enough, most: most)
    built = gallery.settle()
    assert built is not None
    assert not built.pays
    monkeypatch.setattr("dnas.serve.gallery.Approximate", None)
    assert [ms[0].path for ms in gallery.find_vectors(vectors[:3], 1)] == ["/p/0.jpg", "/p/1.jpg", "/p/2.jpg"]


def test_the_fewest_cells() -> None:
    for most in (1, 2, 7, 500):
        for needed in range(1, most + 1):
            asked: list[int] = []
            found = nearest.fewest(lambda n, asked=asked, needed=needed: asked.append(n) or n >= needed, most)  # type: ignore[misc]
            assert needed <= found <= needed * 17 / 16 + 1
            assert len(asked) < 16
    assert nearest.fewest(lambda n: False, 9) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_lose_nothing(listing: Listing, tmp_path: Path) -> None:
    """20 kills while it is being filled: every time it is whole, and it never has less than before."""
    folder = tmp_path / "gallery"
    Gallery.create(folder, stub())
    count, kills = 0, 0
    rng = np.random.default_rng(0)
    for _ in range(200):
        child = os.fork()
        if not child:
            Gallery.open(folder, stub()).add(listing, batch=1)
            os._exit(0)
        time.sleep(rng.uniform(0.0, 0.08))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        base = sqlite3.connect(folder / NAME)
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        base.close()
        now = len(Store(folder))
        assert now >= count
        count = now
        if kills >= 20 and count > 0:
            break
    assert kills >= 20
    gallery = Gallery.open(folder, stub())
    gallery.add(listing)
    assert len(gallery) == len(listing)
    for query in listing.paths[:5]:
        assert gallery.find(query, 1)[0][0].similarity == pytest.approx(1, abs=1e-5)


def test_damaged_and_strange_files(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    """One line, never code of the file's; vectors that are none are seen. (`tools/fuzz.py` tries many more.)"""
    content = gallery.store.file.read_bytes()
    folder = tmp_path / "strange"
    folder.mkdir()

    def refused(content: bytes) -> str | None:
        (folder / NAME).write_bytes(content)
        try:
            Gallery.open(folder, stub()).find(listing.paths[0], k=100)
            return None
        except UserError as error:
            return str(error)

    assert refused(content) is None
    assert "damaged" in (refused(b"x" * 5000) or "")
    assert "damaged" in (refused(content[: len(content) // 2]) or "")
    for name, change in (
        ("trigger", "CREATE TRIGGER t AFTER DELETE ON pictures BEGIN DELETE FROM about; END"),
        ("vector", "UPDATE pictures SET vector = zeroblob(48) WHERE id = 3"),
        ("short", "UPDATE pictures SET vector = x'00' WHERE id = 3"),
        ("type", "UPDATE pictures SET columns = 7 WHERE id = 3"),
        ("probes", "INSERT INTO coarse VALUES (1, zeroblob(48), 0, 1.0, 3)"),
        ("interface", "UPDATE about SET value = '{}' WHERE key = 'interface'"),
    ):
        (folder / NAME).write_bytes(content)
        base = sqlite3.connect(folder / NAME)
        base.execute(change)
        base.commit()
        base.close()
        text = refused((folder / NAME).read_bytes())
        assert text is not None, name
        assert "\n" not in text
    with pytest.raises(UserError, match="no gallery there"):
        Gallery.open(tmp_path / "none", stub())
