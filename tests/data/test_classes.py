"""Data sets of classes: layouts, the test set that is drawn, what is held out."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dnas.data.classes import hold_out_images, load_classes
from dnas.data.shuffled import shuffled
from dnas.data.splits import Split
from dnas.errors import UserError


def pictures(root: Path, counts: dict[str, int], shade: int = 0) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, shade, 0)).save(root / name / f"{number:03d}.png")
    return root


def names(split: Split) -> set[str]:
    return {f"{file.parent.name}/{file.name}" for file in split.files}


def test_a_test_set_is_drawn_by_names(tmp_path: Path) -> None:
    """A fifth of every class; the same wherever the data lie, and whatever other classes there are."""
    one = load_classes(str(pictures(tmp_path / "a", {"cat": 20, "dog": 11})))
    two = load_classes(str(pictures(tmp_path / "b", {"cat": 20, "dog": 11, "ant": 7})))
    assert not one.own_test
    assert np.bincount(one.test.pids).tolist() == [0, 4, 2]
    assert one.classes == ("cat", "dog")
    assert not names(one.train) & names(one.test)
    assert names(one.test) == {name for name in names(two.test) if not name.startswith("ant")}
    assert two.classes == ("ant", "cat", "dog")
    moved = load_classes(str(pictures(tmp_path / "a2" / "a", {"cat": 20, "dog": 11})))
    assert moved.fingerprint() == one.fingerprint()
    other = load_classes(str(pictures(tmp_path / "c" / "a", {"cat": 20, "dog": 11}, shade=9)))
    assert other.fingerprint()["sha256"] != one.fingerprint()["sha256"]


def test_a_test_set_of_its_own_and_a_csv(tmp_path: Path) -> None:
    pictures(tmp_path / "set/train", {"cat": 5, "dog": 5})
    pictures(tmp_path / "set/val", {"dog": 2})
    found = load_classes(str(tmp_path / "set"))
    assert (found.own_test, len(found.train), len(found.test)) == (True, 10, 2)
    assert found.test.pids.tolist() == [2, 2]
    lines = [
        "path,class,split",
        "set/train/cat/000.png,c,train",
        "set/train/dog/000.png,d,",
        "set/val/dog/001.png,d,val",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    listed = load_classes(str(tmp_path / "list.csv"))
    assert (len(listed.train), len(listed.test), listed.classes) == (2, 1, ("c", "d"))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"cat": 5}, "found 1 classes to train on, training needs at least two"),
        ({}, "no images; expected a folder a class"),
    ],
)
def test_what_cannot_be_trained_on(counts: dict[str, int], said: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match=said):
        load_classes(str(pictures(tmp_path / "x", counts)))


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images in sub-folders and beside the classes, and strays; a folder with nothing but those is refused."""
    pictures(tmp_path / "train", {"cat": 3, "dog": 3})
    load_classes(str(tmp_path))
    assert capsys.readouterr().err == ""
    pictures(tmp_path / "train/cat", {"old": 1})
    pictures(tmp_path, {"train": 1})
    for name in ("x.heic", "Thumbs.db"):
        (tmp_path / "train/dog" / name).write_bytes(b"")
    assert len(load_classes(str(tmp_path)).train) + len(load_classes(str(tmp_path)).test) == 6
    what = "files that are not called like images or not right in the folder of a class"
    said = f"dnas: left out 3 {what}: train/000.png, train/cat/old/000.png, train/dog/x.heic"
    assert capsys.readouterr().err.splitlines() == [said] * 2
    pictures(tmp_path / "train/eel", {"old": 1})
    with pytest.raises(UserError, match=r"train/eel: no images; expected a folder a class, such as eel/0001.jpg"):
        load_classes(str(tmp_path))


def test_names_of_classes_that_are_not_utf8(tmp_path: Path) -> None:
    sums = set()
    for byte in (b"\xff", b"\xfe"):
        try:
            pictures(tmp_path / byte.hex() / "a", {f"cat{os.fsdecode(byte)}": 5, "dog": 5})
        except OSError:
            pytest.skip("no such names on this file system")
        sums.add(load_classes(str(tmp_path / byte.hex() / "a")).fingerprint()["sha256"])
    assert len(sums) == 2


def test_a_strange_class_in_the_test_set(tmp_path: Path) -> None:
    pictures(tmp_path / "train", {"cat": 3, "dog": 3})
    pictures(tmp_path / "test", {"eel": 1})
    with pytest.raises(UserError, match="class 'eel' is in the test set and not in the training set"):
        load_classes(str(tmp_path))
    (tmp_path / "l.csv").write_text("path,label\na.png,c\n")
    with pytest.raises(UserError, match=r"l.csv: column class is missing, found path, label"):
        load_classes(str(tmp_path / "l.csv"))


@given(st.lists(st.integers(2, 12), min_size=2, max_size=6), st.floats(0.05, 0.9), st.integers(0, 5))
def test_images_of_every_class_are_held_out_and_stay(counts: list[int], share: float, seed: int) -> None:
    pids = np.repeat(np.arange(1, len(counts) + 1), counts)
    split = Split.of([(Path(f"{n}.png"), int(pid), 0) for n, pid in enumerate(pids)])
    rest, held = hold_out_images(split, share, seed)
    assert {*rest.files} | {*held.files} == {*split.files}
    assert not {*rest.files} & {*held.files}
    for pid, count in enumerate(counts, start=1):
        kept, out = int((rest.pids == pid).sum()), int((held.pids == pid).sum())
        assert kept >= 1
        assert out >= 1
        assert abs(out - share * count) <= 1


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 3))
def test_every_image_once_an_epoch(images: int, batch: int, epoch: int) -> None:
    found = shuffled(images, batch, 7, epoch)
    size = min(batch, images)
    assert found.shape == (images // size, size)
    assert len(np.unique(found)) == found.size
    assert np.array_equal(found, shuffled(images, batch, 7, epoch))
