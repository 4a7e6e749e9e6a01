"""What `dnas data check` finds."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dnas.cli import main
from dnas.data.check import PUBLISHED, published_name
from dnas.data.splits import ReIDData, Split
from tests.data.manifests import ROWS, Write, manifest


def test_check_finds_what_is_wrong(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], pedestrians: Path
) -> None:
    first = write("bounding_box_train/0001_c1s1_000001_00.jpg")
    write("bounding_box_train/0002_c1s1_000001_00.jpg")
    write("bounding_box_train/0003_c1s1_000001_00.jpg")
    write("query/0003_c1s1_000002_00.jpg")
    write("query/0009_c2s1_000002_00.jpg")
    write("bounding_box_test/0003_c2s1_000001_00.jpg")
    (tmp_path / "bounding_box_test/0004_c1s1_000009_00.jpg").write_bytes(first.read_bytes())
    (tmp_path / "bounding_box_train/0005_c1s1_000009_00.jpg").write_bytes(
        (tmp_path / "bounding_box_train/0002_c1s1_000001_00.jpg").read_bytes()
    )
    assert main(["data", "check", str(tmp_path), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.err.strip().endswith("3 problems, listed above")
    result = json.loads(printed.out.strip().splitlines()[-1])
    texts = [finding["text"] for finding in result["findings"]]
    for start in (
        "the same image in training and test: 1 (",
        "the same image under two identities: 1 (",
        "identities in training and test: 1 (3)",
        "queries without a match in another camera (they do not count): 1 (0009_c2s1_000002_00.jpg)",
        "training images of one camera",
        "training identities with one image: 4 (1, 2, 3, 5)",
    ):
        assert any(text.startswith(start) for text in texts), start
    first.write_bytes(first.read_bytes()[:300])
    assert main(["data", "check", str(tmp_path)]) == 2
    assert f"unreadable: 1 ({first}" in capsys.readouterr().out
    missing = manifest(tmp_path, write, ROWS)
    (tmp_path / "a/2.jpg").unlink()
    (tmp_path / "a/3.jpg").unlink()
    assert main(["data", "check", str(missing)]) == 2
    out = capsys.readouterr().out
    assert "unreadable: 2" in out
    assert "fingerprint none" in out
    assert main(["data", "check", str(pedestrians)]) == 0
    assert "personal data" in capsys.readouterr().out


def test_check_finds_queries_that_find_themselves_and_near_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copies under another camera are a problem, under the same one a remark; compressed again or smaller: a remark."""
    rng = np.random.default_rng(0)
    rows = ["path,identity,camera,split"]
    for identity in range(4):
        for camera, split in (("a", "query"), ("b", "gallery"), ("c", "gallery")):
            coarse = rng.integers(0, 256, (8, 4, 3), np.uint8)
            Image.fromarray(coarse).resize((32, 64)).save(tmp_path / f"{identity}{camera}.png")
            rows.append(f"{identity}{camera}.png,{identity},{camera},{split}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    assert main(["data", "check", str(tmp_path / "data.csv")]) == 0
    assert "picture" not in capsys.readouterr().out
    first, second = (Image.open(tmp_path / f"{n}a.png").convert("RGB") for n in (0, 1))
    for name, source, line in (
        ("own.png", "3a", "3,a,gallery"),
        ("other.png", "2a", "2,b,gallery"),
        ("train.png", "3c", "9,a,train"),
    ):
        (tmp_path / name).write_bytes((tmp_path / f"{source}.png").read_bytes())
        rows.append(f"{name},{line}")
    first.save(tmp_path / "again.jpg", quality=60)
    second.resize((24, 48)).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "small.jpg", exif=turned(6))
    rows += ["again.jpg,0,b,gallery", "small.jpg,8,b,train"]
    (tmp_path / "data.csv").write_text("\n".join(rows))
    assert main(["data", "check", str(tmp_path / "data.csv")]) == 2
    out = capsys.readouterr().out
    for text in (
        f"problem: the same image in training and test: 1 ({tmp_path / 'train.png'} and {tmp_path / '3c.png'})",
        "problem: queries that lie in the gallery under another camera, and so find themselves: 1"
        f" ({tmp_path / '2a.png'} and {tmp_path / 'other.png'})",
        f"remark: the same image twice: 1 ({tmp_path / '3a.png'} and {tmp_path / 'own.png'})",
        "remark: nearly the same picture in training and test, or in query and gallery: 2"
        f" ({tmp_path / 'small.jpg'} and {tmp_path / '1a.png'}, {tmp_path / '0a.png'} and {tmp_path / 'again.jpg'})",
        f"remark: turned as their EXIF orientation says: 1 ({tmp_path / 'small.jpg'})",
    ):
        assert text in out, text


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def test_check_finds_what_is_listed_twice(tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """One file in several rows is as wrong as a copy of it; only an image of the split `test` is in two as it is."""
    rows = ["a/t.jpg,Molly,barn,test", "a/u.jpg,Molly,field,test", "a/1.jpg,Bella,barn,train"]
    file = manifest(tmp_path, write, rows)
    for extra, text in (
        ([], ""),
        (["a/1.jpg,Daisy,barn,train"], "problem: the same image under two identities: 1 (PATH and PATH)"),
        (["a/1.jpg,Bella,barn,gallery"], "problem: the same image in training and test: 1 (PATH and PATH)"),
        (["a/1.jpg,Bella,barn,train"], "remark: the same image twice: 1 (PATH and PATH)"),
        (
            ["a/2.jpg,Daisy,barn,query", "a/2.jpg,Daisy,field,gallery"],
            "problem: queries that lie in the gallery under another camera, and so find themselves: 1 (PATH and PATH)",
        ),
    ):
        manifest(tmp_path, write, [*rows, *extra])
        main(["data", "check", str(file)])
        out = capsys.readouterr().out
        assert text.replace("PATH", str(tmp_path / (extra or rows)[0].split(",")[0])) in out
        assert ("the same image" in out or "find themselves" in out) == bool(extra)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (["a/1.png,Daisy,barn,train", "a/2.png,Molly,barn,test"], "problem: unreadable: 3 ("),
        ([], "problem: no images\n"),
    ],
)
def test_check_of_nothing_that_can_be_read(
    rows: list[str], text: str, tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(manifest(tmp_path, write, rows))]) == 2
    assert text in capsys.readouterr().out


def test_published_sets_are_recognised(tmp_path: Path) -> None:
    for name, known in PUBLISHED.items():
        splits = [
            Split((tmp_path,) * images, np.arange(images) % max(ids, 1) + 1, np.zeros(images, np.int64))
            for images, ids in known.counts
        ]
        data = ReIDData(name, known.layout, *splits)
        assert published_name(data) == name
    assert published_name(ReIDData("x", "market", splits[1], splits[1], splits[1])) is None
