"""Published Re-ID data sets, each read in the folders and file names that its authors gave it; and any set at all.

Identities and cameras become whole numbers; 0 is a distractor, an identity that nobody asks for. Junk (-1) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dnas.data.manifest import read_manifest
from dnas.data.protocol import Cameras, Protocol
from dnas.data.splits import ReIDData, Split, chained
from dnas.data.usable import OnBadImage, say_left_out, without_bad
from dnas.errors import UserError

IMAGES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Endings of images, in small or capital letters."""
EXPECTED = ("thumbs.db", "desktop.ini", ".ds_store")
"""Files that systems put into every folder: nothing is said of them (nor of "._*", by macOS)."""
MARKET = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
VERI = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
NAME = re.compile(r"(-1|\d{1,8})_c(\d{1,4})(?:s\d+)?_.*")
"""0001_c1s1_000151_00 (Market-1501), 0001_c2_f0046158 (Duke), 0001_c001_00016450_0 (VeRi): identity, camera."""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Args:
        marks: files or folders that tell this layout from the others.
        read: the three lists of images below a root.
        hint: what it looks like, for messages.
        listed: whether its images are what lies in the folders of `marks` (and not what a list names).
        deep: whether what lies in sub-folders of those is read too.
    """

    marks: tuple[str, ...]
    read: Callable[[Path], dict[str, Split]]
    hint: str
    listed: bool = True
    deep: bool = False


def images_in(folder: Path) -> Iterator[Path]:
    """The images of a folder in name order."""
    if not folder.is_dir():
        raise UserError(f"data: {folder}: no such folder")
    return (file for file in sorted(folder.iterdir()) if is_image(file))


def is_image(file: Path) -> bool:
    """Whether it is called like one; macOS writes "._a.jpg" beside a.jpg on foreign disks."""
    return file.suffix.lower() in IMAGES and not file.name.startswith("._")


def beside_images(root: Path, layout: Layout) -> tuple[str, ...]:
    """Files in the folders of a layout that are not read."""
    folders = [root / mark for mark in layout.marks if layout.listed]
    return tuple(str(file.relative_to(root)) for folder in folders for file in unread_in(folder, layout.deep))


def unread_in(folder: Path, deep: bool = False) -> Iterator[Path]:
    """Files not called like images or (but where `deep`) in a sub-folder, and that no system puts there."""
    return (
        file
        for file in sorted(folder.rglob("*"))
        if not (is_image(file) and (deep or file.parent == folder))
        and file.name.lower() not in EXPECTED
        and file.name[:2] != "._"
        and file.is_file()
    )


def read_named(root: Path, folders: Mapping[str, str]) -> dict[str, Split]:
    """Images whose names say identity and camera, one folder a split."""
    return {name: _read_folder(root / folder) for name, folder in folders.items()}


def _read_folder(folder: Path) -> Split:
    rows = []
    for file in images_in(folder):
        match = NAME.fullmatch(file.stem)
        if not match:
            raise UserError(
                f"{file}: file name does not parse; expected IDENTITY_cCAMERA..., as 0001_c1s1_000151_00"
                " (an identity of up to 8 digits, or -1)"
            )
        if match[1] != "-1":  # junk by the protocol: neither right nor wrong
            rows.append((file, int(match[1]), int(match[2])))
    if not rows:
        raise UserError(f"data: {folder}: no images; expected files such as 0001_c1s1_000151_00.jpg")
    return Split.of(rows)


def read_msmt17(root: Path, train: str, test: str) -> dict[str, Split]:
    """MSMT17: lists of "0000/0000_000_01_0303morning_0008_0.jpg 0": file, identity; the third number is the camera.

    Training is list_train and list_val together, 32,621 images as published.
    """
    lists = {"train": (train, ("train", "val")), "query": (test, ("query",)), "gallery": (test, ("gallery",))}
    found: dict[str, Split] = {}
    for name, (folder, parts) in lists.items():
        first = 1 + int(np.max(found["train"].pids, initial=0)) if found else 1  # test identities begin at 0 again
        rows = [row for part in parts for row in _read_list(root, f"list_{part}.txt", folder, first)]
        found[name] = Split.of(rows)
    return found


def _read_list(root: Path, name: str, folder: str, first: int) -> Iterator[tuple[Path, int, int]]:
    file = root / name
    if not file.is_file():
        raise UserError(f"data: {file}: no such file; expected list_train, list_val, list_query and list_gallery .txt")
    for number, line in enumerate(file.read_text("utf-8", "surrogateescape").splitlines(), start=1):
        words = line.split()
        parts = Path(words[0]).stem.split("_") if len(words) == 2 else []
        if len(parts) < 3 or not all(re.fullmatch(r"[0-9]{1,8}", word) for word in (words[1], parts[2])):
            raise UserError(
                f"{file}: line {number}: found {line!r}, expected 0000/0000_000_01_0303morning_0008_0.jpg 0"
                " (numbers of up to 8 digits)"
            )
        yield root / folder / words[0], int(words[1]) + first, int(parts[2])


def read_occluded_reid(root: Path) -> dict[str, Split]:
    """Occluded-REID: occluded queries, whole-body gallery, nothing to train on; IDENTITY_NUMBER names, no cameras."""
    found = {"train": Split.of([])}
    for camera, (name, folder) in enumerate({"query": "occluded_body_images", "gallery": "whole_body_images"}.items()):
        rows = []
        for file in sorted((root / folder).rglob("*")):
            if is_image(file):
                if not re.fullmatch(r"\d{1,8}_.*", file.stem):
                    raise UserError(
                        f"{file}: file name does not parse; expected IDENTITY_NUMBER, as 001_01 (an identity of up to 8"
                        " digits)"
                    )
                rows.append((file, int(file.stem.split("_")[0]), camera))
        if not rows:
            raise UserError(f"data: {root / folder}: no images; expected files such as 001/001_01.tif")
        found[name] = Split.of(rows)
    return found


LAYOUTS: Mapping[str, Layout] = {
    "market": Layout(
        tuple(MARKET.values()),
        lambda root: read_named(root, MARKET),
        "bounding_box_train, query and bounding_box_test (Market-1501, DukeMTMC-reID, CUHK03-NP, Occluded-Duke)",
    ),
    "veri": Layout(
        tuple(VERI.values()), lambda root: read_named(root, VERI), "image_train, image_query and image_test (VeRi-776)"
    ),
    "msmt17_v1": Layout(
        ("train", "test", "list_train.txt"),
        lambda root: read_msmt17(root, "train", "test"),
        "train, test and list_*.txt (MSMT17 v1)",
        listed=False,
    ),
    "msmt17_v2": Layout(
        ("mask_train_v2", "mask_test_v2", "list_train.txt"),
        lambda root: read_msmt17(root, "mask_train_v2", "mask_test_v2"),
        "mask_train_v2, mask_test_v2 and list_*.txt (MSMT17 v2)",
        listed=False,
    ),
    "occluded_reid": Layout(
        ("occluded_body_images", "whole_body_images"),
        read_occluded_reid,
        "occluded_body_images and whole_body_images (Occluded-REID)",
        deep=True,
    ),
}


def detect(root: Path) -> Layout:
    """The layout below a root.

    Raises:
        UserError: none of them, saying which is nearest or which there are.
    """
    if not root.is_dir():
        raise UserError(f"data: {root}: no such folder")
    present = {name: [mark for mark in layout.marks if (root / mark).exists()] for name, layout in LAYOUTS.items()}
    for name, layout in LAYOUTS.items():
        if len(present[name]) == len(layout.marks):
            return layout
    best = max(present, key=lambda name: len(present[name]))
    if present[best]:
        absent = next(mark for mark in LAYOUTS[best].marks if mark not in present[best])
        raise UserError(f"data: {root / absent}: no such file or folder; expected {LAYOUTS[best].hint}")
    hints = "; ".join(layout.hint for layout in LAYOUTS.values())
    raise UserError(f"data: {root}: no known layout; expected a CSV manifest, or a folder with {hints}")


def read_one(root: Path) -> ReIDData:
    """One data set, whatever its layout: a folder, or a CSV manifest."""
    if root.suffix.lower() == ".csv":
        splits, known = read_manifest(root)
        return ReIDData.of(root.stem, "manifest", splits).under(Protocol(known=known))
    layout = detect(root)
    name = next(name for name, known in LAYOUTS.items() if known is layout)
    return ReIDData.of(root.resolve().name, name, layout.read(root), beside_images(root, layout))


def load_data(
    data: str | Path,
    test_on: str | None = None,
    for_training: bool = True,
    tested: bool = True,
    on_bad_image: OnBadImage = "stop",
    cameras: Cameras = "auto",
) -> ReIDData:
    """The data sets of `--data` and `--test_on`.

    Args:
        data: a folder or CSV manifest, or several with commas between: train on all of them.
        test_on: take query and gallery from this one.
        for_training: refuse sets that nothing can be trained on.
        tested: whether query and gallery are needed.
        on_bad_image: `skip` decodes every image once and leaves out those that cannot be; `stop` leaves them to be met.
        cameras: what a query may be matched with.

    Raises:
        UserError: nothing there, an unknown layout, a name or line that does not parse, one identity or none, or
            cameras wanted that are not known.
    """
    text = str(data)
    names = [text] if Path(text).exists() else text.split(",")
    parts = [read_one(Path(name)) for name in names]
    if len(parts) > 1 and test_on is None and tested:
        raise UserError(f"data: found {len(parts)} data sets; which to test on must be said (retrain: --test_on ROOT)")
    found, train = parts[0], chained([part.train for part in parts])
    name = "+".join(part.name for part in parts)
    if test_on is not None:
        other = read_one(Path(test_on))
        names, parts = [*names, test_on], [*parts, other]
        found = ReIDData(f"{name}>{other.name}", "several", train, other.query, other.gallery)
    elif len(parts) > 1:
        found = ReIDData(name, "several", train, Split.of([]), Split.of([]))
    found = replace(found, ignored=tuple(name for part in parts for name in part.ignored))
    known = [part.protocol.known for part in parts]
    found = found.under(Protocol.of(cameras, list(zip(names, known, strict=True))))
    if on_bad_image == "skip":
        found = without_bad(found)
    if for_training and len(np.unique(found.train.pids)) < 2:
        count = len(np.unique(found.train.pids))
        raise UserError(f"data: {data}: found {count} training identities, training needs at least two")
    if for_training and found.ignored:
        say_left_out(found.ignored, "files that are not called like images or lie in sub-folders")
    return found
