"""A gallery on disk: what is added is found, what is removed is gone, and a kill loses nothing."""

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dnas.errors import UserError
from dnas.serve.embed import embed_listing
from dnas.serve.find import Found, write_csv
from dnas.serve.gallery import Gallery, read_vectors
from dnas.serve.listing import Listing, Value, list_pictures
from dnas.serve.network import Pixels, Vectors
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
    for wrong in (
        "colour=red",
        "camera",
        "camera==1",
        "camera=>1",
        "camera=<1",
        "camera!=!=1",
        "camera~1",
        '"=1',
        "camera);DROP TABLE pictures;--=1",
    ):
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


def test_columns_can_come_later(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    """Without embedding again; what is not said stays, but of a file that has changed: it may show somebody else."""
    one, two = (str(tmp_path / name) for name in ("one.jpg", "two.jpg"))
    for copy in (one, two):
        Path(copy).write_bytes(Path(listing.paths[0]).read_bytes())
    assert gallery.add([one, two]) == (2, [])
    ids = gallery.store.select()

    def add(columns: dict[str, list[Value]]) -> dict[str, dict[str, Value]]:
        assert gallery.add(Listing([one, two], columns)) == (news, [])
        return {Path(row.path).stem: dict(row.columns) for row in gallery.rows() if row.path in (one, two)}

    news = 1
    assert add({"größe": [7, ""]}) == {"one": {"größe": 7}, "two": {}}
    assert [row.path for row in gallery.rows(["größe=7"])] == [one]
    news = 2
    assert add({"größe": ["", 8], "age": [1, 2]}) == {"one": {"größe": 7, "age": 1}, "two": {"größe": 8, "age": 2}}
    news = 0
    assert add({"age": [1, 2]}) == add({}) == {"one": {"größe": 7, "age": 1}, "two": {"größe": 8, "age": 2}}
    assert gallery.store.select().tolist() == ids.tolist()  # no picture was replaced
    Path(one).write_bytes(Path(listing.paths[1]).read_bytes())
    os.utime(one, (1, 1))
    news = 1
    assert add({"age": [3, 2]}) == {"one": {"age": 3}, "two": {"größe": 8, "age": 2}}
    [stamp] = gallery.store.stamps([two]).values()
    gallery.add_vectors([Row(two, {"age": 4})], np.zeros((1, 12), np.float32), [stamp])
    news = 0
    assert add({}) == {"one": {"age": 3}, "two": {"größe": 8, "age": 4}}
    gallery.store.describe([Row("not there", {"age": 5, "new": 1})])
    assert "new" not in gallery.store.columns()


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
    interface, *_ = read_vectors(tmp_path / "v.npz")
    with pytest.raises(UserError, match="they cannot be compared"):
        gallery.embedder.interface.check_same(interface, "v.npz")


def test_vectors_of_embed_are_the_same(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    embed_listing(stub(), listing, tmp_path / "v.npz")
    interface, rows, stamps, vectors = read_vectors(tmp_path / "v.npz")
    other = Gallery.create(tmp_path / "other", stub())
    other.embedder.interface.check_same(interface, "v.npz")
    other.add_vectors(rows, vectors, stamps)
    assert other.find(listing.paths[:3]) == gallery.find(listing.paths[:3])
    assert other.add(listing) == (0, [])


def test_vectors_know_their_files(listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they are indexed: those that were embedded, once each; one that has changed since is embedded again."""
    (tmp_path / "there").mkdir()
    for name, path in zip("ab", listing.paths, strict=False):
        (tmp_path / "there" / f"{name}.jpg").write_bytes(Path(path).read_bytes())
    monkeypatch.chdir(tmp_path / "there")
    embed_listing(stub(), list_pictures(["a.jpg", "b.jpg", "a.jpg"]), tmp_path / "v.npz")
    monkeypatch.chdir(tmp_path)
    _, rows, stamps, vectors = read_vectors(tmp_path / "v.npz")
    paths = [str(tmp_path / "there" / f"{name}.jpg") for name in "ba"]
    assert [row.path for row in rows] == paths
    (tmp_path / "there/a.jpg").write_bytes(Path(listing.paths[2]).read_bytes())
    os.utime(tmp_path / "there/a.jpg", (1, 1))
    gallery = Gallery.create(tmp_path / "gallery", stub())
    gallery.add_vectors(rows * 2, np.concatenate([vectors] * 2), stamps * 2)  # of a path that is there twice the last
    assert len(gallery) == 2
    assert gallery.add(paths) == (1, [])
    assert gallery.find(listing.paths[2], k=1)[0][0].path == paths[1]


def test_vectors_without_stamps_are_older(listing: Listing, tmp_path: Path) -> None:
    embed_listing(stub(), listing, tmp_path / "v.npz")
    with np.load(tmp_path / "v.npz") as found:
        arrays = {name: found[name] for name in found.files if name not in ("stamps", "folder")}
    np.savez(tmp_path / "old.npz", **arrays)
    gallery = Gallery.create(tmp_path / "gallery", stub())
    _, rows, stamps, vectors = read_vectors(tmp_path / "old.npz")
    gallery.add_vectors(rows, vectors, stamps)
    assert gallery.add(listing) == (len(listing), [])
    np.savez(tmp_path / "odd.npz", **arrays, stamps=np.zeros(3))
    flat = {"paths": arrays["paths"][0], "vectors": arrays["vectors"][:1]}
    np.savez(tmp_path / "flat.npz", **{**arrays, **flat})
    np.savez(tmp_path / "column.npz", **{**arrays, "column identity": np.array(3)})
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name in ("odd", "flat", "column", "one"):
        with pytest.raises(UserError, match=f"{name}.npz: not a file of dnas embed"):
            read_vectors(tmp_path / f"{name}.npz")


def test_a_file_that_changes_while_it_is_read_is_read_again(listing: Listing, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(Path(listing.paths[0]).read_bytes())
    network = stub()
    stream = network.network.stream

    def late(batches: Iterator[Pixels]) -> Iterator[Vectors]:
        for vectors in stream(batches):
            file.write_bytes(Path(listing.paths[1]).read_bytes())
            yield vectors

    gallery = Gallery.create(tmp_path / "gallery", network)
    network.network.stream = late  # type: ignore[method-assign]
    assert gallery.add([str(file)]) == (1, [])
    network.network.stream = stream  # type: ignore[method-assign]
    assert gallery.add([str(file)]) == (1, [])


def test_a_full_disk_is_no_damage(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    """It is named, and nothing of what was being written is left: it goes on when there is room."""
    resource = pytest.importorskip("resource")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))
    try:
        with pytest.raises(UserError, match=r"gallery.sqlite: cannot be read or written: (disk I/O|database or disk)"):
            Gallery.create(tmp_path / "full", stub())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not [file for file in (tmp_path / "full").iterdir() if file.name != ".lock"]
    assert Gallery.create(tmp_path / "full", stub()).add(listing) == (len(listing), [])
    rows = [Row(f"/p/{k}.jpg", {}) for k in range(100_000)]  # more than SQLite keeps in memory
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be read or written: (disk I/O|database or disk)"):
            gallery.add_vectors(rows, np.zeros((len(rows), 12), np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(gallery) == len(listing)


def test_who_makes_a_gallery_second_finds_it(gallery: Gallery, listing: Listing) -> None:
    assert len(Store.create(gallery.store.folder, gallery.store.interface, "other")) == len(listing)


def test_names_that_are_not_utf8(gallery: Gallery, listing: Listing, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff.jpg")
    try:
        file.write_bytes(Path(listing.paths[0]).read_bytes())
    except OSError:
        pytest.skip("no such names on this file system")
    with pytest.raises(UserError, match="its name is not UTF-8, which a gallery needs: rename it"):
        gallery.add([str(file)])
    interface = gallery.embedder.interface
    write_csv(Found([str(file)], gallery.find(str(file), 1), interface, "g", 1), tmp_path / "f.csv")
    assert os.fsencode(file) in (tmp_path / "f.csv").read_bytes()


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


@pytest.mark.slow
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
        store = Store(folder)
        assert len(store) >= count
        if kills >= 20 and len(store) > 0:
            break
        if len(store) == len(listing):  # full: on a fast disk before the last kill
            store.remove(store.select())
        count = len(store)
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
