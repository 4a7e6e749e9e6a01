"""Every published layout, written small by the test itself; and manifests."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnas.cli import main
from dnas.data.check import check
from dnas.data.layouts import load_data, read_one
from dnas.data.splits import ReIDData, Split, chained
from dnas.errors import UserError
from dnas.serve.listing import list_pictures
from tests.data.manifests import ROWS, Write, manifest


def found(data: ReIDData) -> dict[str, list[tuple[int, int]]]:
    return {name: list(zip(s.pids.tolist(), s.camids.tolist(), strict=True)) for name, s in data.splits().items()}


@pytest.mark.parametrize(
    ("layout", "folders", "names"),
    [
        # train, query and gallery of each, as their authors name them
        ("market", "market", ("0002_c1s1_000451_03.jpg", "0001_c1s1_001051_00.jpg", "0000_c6s3_094992_00.jpg")),
        ("market", "market", ("0002_c1_f0044158.jpg", "0001_c2_f0046158.jpg", "0000_c6_f0057172.jpg")),  # Duke
        ("market", "market", ("0002_c1_1.png", "0001_c2_6.png", "0000_c6_1.png")),  # CUHK03-NP
        ("veri", "veri", ("0002_c001_00016450_0.jpg", "0001_c002_00030600_0.jpg", "0000_c006_00081190_0.jpg")),
    ],
)
def test_named_layouts(layout: str, folders: str, names: tuple[str, str, str], write: Write, tmp_path: Path) -> None:
    where = {
        "market": ("bounding_box_train", "query", "bounding_box_test"),
        "veri": ("image_train", "image_query", "image_test"),
    }[folders]
    for folder, name in zip(where, names, strict=True):
        write(f"{folder}/{name}")
    write(f"{where[0]}/{names[0].replace('0002', '0003')}")
    (tmp_path / where[2] / "Thumbs.db").write_bytes(b"")
    data = load_data(tmp_path)
    assert data.layout == layout
    assert found(data)["train"] == [(2, 1), (3, 1)]
    assert found(data)["query"][0][0] == 1
    assert found(data)["gallery"] == [(0, 6)]
    assert data.gallery.identities == 0  # a distractor


@pytest.mark.parametrize(
    ("version", "train", "test"), [("v1", "train", "test"), ("v2", "mask_train_v2", "mask_test_v2")]
)
def test_msmt17_versions_are_told_apart(version: str, train: str, test: str, write: Write, tmp_path: Path) -> None:
    lists = {"train": (train, 0, 1), "val": (train, 0, 7), "query": (test, 0, 3), "gallery": (test, 0, 12)}
    for name, (folder, pid, camera) in lists.items():
        image = f"{pid:04d}/{pid:04d}_000_{camera:02d}_0303morning_0008_0.jpg"
        write(f"{folder}/{image}")
        second = f"0001/0001_000_{camera:02d}_0303noon_0008_0.jpg"
        write(f"{folder}/{second}")
        (tmp_path / f"list_{name}.txt").write_text(f"{image} 0\n{second} 1\n")
    data = load_data(tmp_path)
    assert data.layout == f"msmt17_{version}"
    assert found(data)["train"] == [(1, 1), (2, 1), (1, 7), (2, 7)]
    assert found(data)["query"] == [
        (3, 3),
        (4, 3),
    ]  # identity 0 of the test is another person than that of the training
    assert found(data)["gallery"] == [(3, 12), (4, 12)]
    assert all(file.is_file() for split in data.splits().values() for file in split.files)
    for line in ("someone.jpg", f"{image} {'9' * 20}", f"{image} \N{SUPERSCRIPT TWO}", f"0_0_{'1' * 20}.jpg 0"):
        (tmp_path / "list_val.txt").write_text(f"{line}\n", "utf-8")
        with pytest.raises(UserError, match=f"list_val.txt: line 1: found '{line}', expected 0000/0000_000_01"):
            load_data(tmp_path)
    (tmp_path / "list_val.txt").unlink()
    with pytest.raises(UserError, match=r"list_val.txt: no such file; expected list_train"):
        load_data(tmp_path)


def test_occluded_reid_is_for_testing(write: Write, tmp_path: Path) -> None:
    for pid in (1, 2):
        write(f"occluded_body_images/{pid:03d}/{pid:03d}_01.tif")
        write(f"whole_body_images/{pid:03d}/{pid:03d}_05.tif")
    with pytest.raises(UserError, match="found 0 training identities"):
        load_data(tmp_path)
    data = load_data(tmp_path, for_training=False)
    assert found(data) == {"train": [], "query": [(1, 0), (2, 0)], "gallery": [(1, 1), (2, 1)]}
    assert not data.ignored  # here sub-folders are read
    assert not [finding for finding in check(data)[1] if finding.kind == "problem"]
    (tmp_path / "whole_body_images/001/someone.tif").write_bytes(b"")
    with pytest.raises(UserError, match=r"someone.tif: file name does not parse; expected IDENTITY_NUMBER"):
        load_data(tmp_path)


def test_no_known_layout(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no known layout; expected a CSV manifest, or a folder with bounding_box_train"
    ):
        load_data(tmp_path)


def test_manifest(tmp_path: Path, write: Write) -> None:
    data = load_data(manifest(tmp_path, write, ROWS))
    assert data.name == "cows"
    assert found(data) == {"train": [(1, 0), (2, 0)], "query": [(3, 1)], "gallery": [(3, 0), (0, 0)]}
    relabelled = [*ROWS[:1], "a/2.jpg,Bessie,field 2,train", *ROWS[2:]]
    same_files = tmp_path / "others.csv"
    same_files.write_text("\n".join(["path,identity,camera,split", *relabelled]))
    assert load_data(same_files).fingerprint()["sha256"] != data.fingerprint()["sha256"]  # labels count


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (ROWS, "path,id,camera,split", "column identity is missing, found path, id, camera, split, expected path"),
        ([*ROWS, "a/7.jpg,Daisy,barn,tests"], "path,identity,camera,split", "line 8: found"),
        (["a/1.jpg,,barn,train"], "path,identity,camera,split", "line 2: found"),
        (["a/1.jpg"], "path,identity,camera,split", "line 2: found"),
        (ROWS[:1], "path,identity,camera,split", "found 1 training identities"),
    ],
)
def test_wrong_manifests(rows: list[str], header: str, message: str, tmp_path: Path, write: Write) -> None:
    with pytest.raises(UserError, match=message):
        load_data(manifest(tmp_path, write, rows, header))


def test_train_on_several_and_test_on_another(pedestrians: Path, tmp_path: Path, write: Write) -> None:
    cows = manifest(tmp_path, write, ROWS)
    one, several = load_data(pedestrians), load_data(f"{pedestrians},{cows}", str(cows))
    assert several.train.identities == one.train.identities + 2
    assert several.train.cameras == one.train.cameras + 1
    assert several.query.files == load_data(cows).query.files
    assert several.name == f"{one.name}+cows>cows"
    with pytest.raises(UserError, match="found 2 data sets; which to test on must be said"):
        load_data(f"{pedestrians},{cows}")


def test_several_training_lists_keep_their_identities(tmp_path: Path) -> None:
    def split(pids: list[int], camids: list[int]) -> Split:
        return Split((tmp_path,) * len(pids), np.array(pids, np.int64), np.array(camids, np.int64))

    found = chained([split([0, 1, 2], [1, 1, 2]), split([], []), split([0, 1, 2], [0, 1, 1])])
    assert len(np.unique(found.pids)) == 6
    assert len(np.unique(found.camids)) == 4
    assert found.pids.min() > 0


def test_any_ending_of_an_image_and_what_is_left_out(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Endings in capitals, .gif and .jfif are images; systems' own files are not spoken of, others are counted."""
    names = ("0001_c1s1_1_0.JPG", "0001_c2s1_2_0.gif", "0002_c1s1_1_0.JFIF", "0002_c2s1_2_0.Jpeg", "0002_c3s1_2_0.PNG")
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        for name in names if folder == "bounding_box_train" else ("0009_c1s1_1_0.bmp",):
            picture = write(f"{folder}/{Path(name).stem}.png")
            kind = {".gif": "GIF", ".png": "PNG", ".bmp": "BMP"}.get(Path(name).suffix.lower(), "JPEG")
            Image.open(picture).save(picture, kind)
            picture.rename(picture.with_name(name))
    write("bounding_box_test/0009_c2s1_2_0.png")
    train = tmp_path / "bounding_box_train"
    for name in ("._0001_c1s1_1_0.JPG", "Thumbs.db", ".DS_Store"):
        (train / name).write_bytes(b"not an image")
    assert [file.name for file in load_data(tmp_path).train.files] == sorted(names)
    assert [Path(path).name for path in list_pictures([str(train)]).paths] == sorted(names)
    assert capsys.readouterr().err == ""
    for name in ("a.heic", "notes.txt"):
        (train / name).write_bytes(b"")
    write("bounding_box_train/more/0003_c1s1_1_0.png")  # nor is it read
    assert [file.name for file in load_data(tmp_path).train.files] == sorted(names)
    names = ("a.heic", "more/0003_c1s1_1_0.png", "notes.txt")
    said = ", ".join(f"bounding_box_train/{name}" for name in names)
    what = "3 files that are not called like images or lie in sub-folders"
    assert capsys.readouterr().err == f"dnas: left out {what}: {said}\n"
    assert main(["data", "check", str(tmp_path)]) == 0
    what = "files left out, not called like images or in sub-folders"
    assert f"remark: {what}: 3 ({said})" in capsys.readouterr().out


def test_names_that_are_not_utf8(tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Their bytes count; linux has them, other systems may refuse such a name."""
    sums = set()
    for byte in (b"\xff", b"\xfe"):
        root = tmp_path / byte.hex()
        for number, folder in enumerate(("bounding_box_train", "query", "bounding_box_test"), start=1):
            file = root / folder / f"000{number}_c{number}s1_{os.fsdecode(byte)}.jpg"
            file.parent.mkdir(parents=True)
            try:
                Image.new("RGB", (16, 32), (number, 0, 0)).save(file)
            except OSError:
                pytest.skip("no such names on this file system")
        main(["data", "check", str(root)])
        sums.add(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("fingerprint ")))
    assert len(sums) == 2


def test_hashes_notice_changed_files(pedestrians: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(pedestrians, tmp_path / "copy")
    before = read_one(tmp_path / "copy").fingerprint()
    assert before["sha256"] == read_one(pedestrians).fingerprint()["sha256"]
    victim = sorted((tmp_path / "copy/query").iterdir())[0]
    victim.write_bytes(victim.read_bytes() + b"x")
    assert read_one(tmp_path / "copy").fingerprint()["sha256"] != before["sha256"]
