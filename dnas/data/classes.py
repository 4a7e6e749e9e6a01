"""Images with a class: a folder a class, or a CSV; what has no test set gets one, by a hash of the names.

ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg (or val/)     or  ROOT/CLASS/*.jpg     or  FILE.csv: path, class, split
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnas.data.hashes import content_hashes
from dnas.data.layouts import images_in, unread_in
from dnas.data.splits import FORMAT, Split
from dnas.data.usable import say_left_out
from dnas.errors import UserError

COLUMNS = ("path", "class", "split")
TEST = ("test", "val")
"""Folders (and words in a CSV) of the test set."""
TEST_SHARE = 0.2
"""Of every class, where nothing says what to test on."""
Row = tuple[Path, str]


@dataclass(frozen=True)
class ClassData:
    """Training and test images.

    Args:
        name: of the folder or file.
        classes: their names, in the order of `split.pids - 1` (0 is what Re-ID calls a distractor).
        train, test: the images.
        own_test: whether the data set says what to test on; else it was drawn.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    own_test: bool

    def fingerprint(self) -> dict[str, object]:
        """Counts, and a SHA-256 over names, classes and contents of every image, in their order."""
        digest = hashlib.sha256()
        counts: dict[str, dict[str, int]] = {}
        for name, split in (("train", self.train), ("test", self.test)):
            contents = content_hashes(split.files)
            for file, number, content in zip(split.files, split.pids.tolist(), contents, strict=True):
                digest.update(f"{name}/{self.classes[number - 1]}/{file.name}:".encode("utf-8", "surrogateescape"))
                digest.update(content)
            counts[name] = {"images": len(split), "classes": split.identities}
        return {
            "format": FORMAT,
            "name": self.name,
            "sha256": digest.hexdigest(),
            **counts,
            "classes": list(self.classes),
            "test_from": "the data set" if self.own_test else "a hash of the names",
        }


def load_classes(data: str) -> ClassData:
    """Read a data set of classes; says which files of its folders are left out.

    Raises:
        UserError: nothing there, a folder without images, one class or none, or a test image of a class that is not
            trained on.
    """
    root = Path(data)
    if root.suffix.lower() == ".csv":
        rows = _read_csv(root)
    elif not root.is_dir():
        raise UserError(f"data: {root}: no such folder; expected a folder a class, or a CSV file")
    else:
        rows = _read_folders(root)
    train, test = rows["train"], rows["test"]
    own_test = bool(test)
    if not own_test:
        train, test = _drawn(train)
    names = sorted({name for _, name in train})
    if len(names) < 2:
        raise UserError(f"data: {data}: found {len(names)} classes to train on, training needs at least two")
    if strange := sorted({name for _, name in test} - set(names)):
        raise UserError(f"data: {data}: class '{strange[0]}' is in the test set and not in the training set")
    number = {name: index for index, name in enumerate(names, start=1)}
    trained, tested = (Split.of([(file, number[name], 0) for file, name in part]) for part in (train, test))
    return ClassData(root.resolve().stem, tuple(names), trained, tested, own_test)


def _read_folders(root: Path) -> dict[str, list[Row]]:
    """Rows of train and test from a folder a class; says which files are left out."""
    parts = {"train": root}
    if (root / "train").is_dir():
        parts = {"train": root / "train"}
        parts |= next(({"test": root / name} for name in TEST if (root / name).is_dir()), {})
    rows = {name: _folder_a_class(part) for name, part in parts.items()}
    if left_out := [str(file.relative_to(root)) for part in parts.values() for file in _unread(part)]:
        say_left_out(left_out, "files that are not called like images or not right in the folder of a class")
    return {"test": [], **rows}


def _class_folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _unread(root: Path) -> Iterator[Path]:
    """What lies in the folders of the classes and is not read, and images beside these folders."""
    yield from (file for file in images_in(root) if file.is_file())
    for folder in _class_folders(root):
        yield from unread_in(folder)


def _folder_a_class(root: Path) -> list[Row]:
    folders = _class_folders(root)
    rows = [(file, folder.name) for folder in folders for file in images_in(folder)]
    if not rows:
        raise UserError(f"data: {root}: no images; expected a folder a class, such as {root.name}/cat/0001.jpg")
    filled = {name for _, name in rows}
    if empty := [folder for folder in folders if folder.name not in filled]:
        raise UserError(f"data: {empty[0]}: no images; expected a folder a class, such as {empty[0].name}/0001.jpg")
    return rows


def _read_csv(file: Path) -> dict[str, list[Row]]:
    """Rows of train and test; the column split may be left out."""
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream)
            if missing := [name for name in COLUMNS[:2] if name not in (lines.fieldnames or ())]:
                found = ", ".join(lines.fieldnames or ()) or "nothing"
                raise UserError(f"{file}: column {missing[0]} is missing, found {found}, expected {', '.join(COLUMNS)}")
            for line in lines:
                path, name = ((line[column] or "").strip() for column in COLUMNS[:2])
                split = (line.get("split") or "train").strip()
                split = "test" if split in TEST else split
                if not path or "\0" in path or not name or split not in rows:
                    expected = f"path, class, and train, {' or '.join(TEST)}"
                    raise UserError(f"{file}: line {lines.line_num}: found {dict(line)}, expected {expected}")
                rows[split].append((file.parent / path, name))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not readable as CSV ({error})") from error
    return rows


def _drawn(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """A test set from images that have none: of every class those with the smallest hash of class and name.

    It does not depend on the other images of the class but by their count, and not on where the data lie.
    """
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row[1], []).append(row)
    train: list[Row] = []
    test: list[Row] = []
    for name, members in by_class.items():
        ordered = sorted(members, key=lambda row: _digest(f"{name}/{row[0].name}"))
        count = min(round(TEST_SHARE * len(ordered)), len(ordered) - 1)
        chosen = {row[0] for row in ordered[:count]}
        train += [row for row in members if row[0] not in chosen]
        test += [row for row in members if row[0] in chosen]
    return train, test


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def hold_out_images(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Set images of every class aside: (the rest, the held-out ones); of each class at least one stays.

    Raises:
        UserError: no class has images enough to hold any out.
    """
    if share == 0:
        nothing: NDArray[np.bool_] = np.zeros(len(train), bool)
        return train, train.subset(nothing)
    order = np.random.default_rng([seed, 1]).permutation(len(train))
    by_class = order[np.argsort(train.pids[order], kind="stable")]
    _, start, count = np.unique(train.pids[by_class], return_index=True, return_counts=True)
    place = np.arange(len(train)) - np.repeat(start, count)  # of an image among those of its class
    taken = np.minimum(np.maximum(np.round(share * count), 1), count - 1)
    held = np.zeros(len(train), bool)
    held[by_class] = place < np.repeat(taken, count)
    if not held.any():
        raise UserError(f"holdout: {share} of one image a class leaves none to train on")
    return train.subset(~held), train.subset(held)
