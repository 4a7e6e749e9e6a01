"""Re-ID data sets in the layout of Market-1501 (Zheng et al., ICCV 2015).

ROOT/bounding_box_train/   ROOT/query/   ROOT/bounding_box_test/
0001_c1s1_000151_00.jpg    identity 0001, camera 1; -1 is junk (ignored), 0000 a distractor
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnas.errors import UserError

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
NAME = re.compile(r"(-1|\d{1,8})_c(\d{1,4})(?:s\d+)?_.*")
IMAGES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Split:
    """Images with who (identity, `pids`) and where (camera, `camids`), one entry per image."""

    files: tuple[Path, ...]
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, keep: NDArray[np.bool_]) -> Split:
        files = tuple(file for file, kept in zip(self.files, keep, strict=True) if kept)
        return Split(files, self.pids[keep], self.camids[keep])


@dataclass(frozen=True)
class ReIDData:
    """Training, query and gallery images of one data set."""

    root: Path
    train: Split
    query: Split
    gallery: Split

    def fingerprint(self) -> dict[str, object]:
        """Counts, and a SHA-256 over names, sizes and contents of every image, in name order."""
        digest = hashlib.sha256()
        counts: dict[str, dict[str, int]] = {}
        for name in FOLDERS:
            split: Split = getattr(self, name)
            for file in split.files:
                content = file.read_bytes()
                digest.update(f"{name}/{file.name}:{len(content)}:".encode())
                digest.update(hashlib.sha256(content).digest())
            counts[name] = {
                "images": len(split),
                "identities": len(np.unique(split.pids)),
                "cameras": len(np.unique(split.camids)),
            }
        return {"name": self.root.name, "sha256": digest.hexdigest(), **counts}


def load_market(root: str | Path) -> ReIDData:
    """Read the layout of Market-1501.

    Raises:
        UserError: a folder is missing or empty, or a file name does not parse.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"data: {root}: no such folder")
    data = ReIDData(root, **{name: _read(root / folder) for name, folder in FOLDERS.items()})
    if len(np.unique(data.train.pids)) < 2:
        raise UserError(f"{root / FOLDERS['train']}: found one identity, training needs at least two")
    return data


def _read(folder: Path) -> Split:
    if not folder.is_dir():
        raise UserError(f"data: {folder}: no such folder; expected {', '.join(FOLDERS.values())} (Market-1501 layout)")
    files, pids, camids = [], [], []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in IMAGES:
            continue
        match = NAME.fullmatch(file.stem)
        if not match:
            raise UserError(
                f"{file}: file name does not parse; expected IDENTITY_cCAMERAsSEQUENCE_FRAME, as 0001_c1s1_000151_00"
            )
        if match[1] == "-1":  # junk by the protocol: neither right nor wrong
            continue
        files.append(file)
        pids.append(int(match[1]))
        camids.append(int(match[2]))
    if not files:
        raise UserError(f"data: {folder}: no images; expected files such as 0001_c1s1_000151_00.jpg")
    return Split(tuple(files), np.array(pids, np.int64), np.array(camids, np.int64))


def check_matches(query: Split, gallery: Split, name: str) -> None:
    """Refuse, before any training, images that no query of which has a match in another camera.

    Raises:
        UserError: naming the set.
    """
    pairs = {(int(pid), int(camid)) for pid, camid in zip(gallery.pids, gallery.camids, strict=True)}
    cameras: dict[int, set[int]] = {}
    for pid, camid in pairs:
        cameras.setdefault(pid, set()).add(camid)
    seen = set(zip(query.pids.tolist(), query.camids.tolist(), strict=True))
    if not any(cameras.get(pid, set()) - {camid} for pid, camid in seen):
        raise UserError(
            f"data: {name}: no image has a match of its identity in another camera, so nothing can be ranked"
        )


def hold_out(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Set identities aside: (the rest, the held-out ones). At least two are held out if `share` > 0.

    Raises:
        UserError: too few identities to leave two on each side.
    """
    pids = np.unique(train.pids)
    count = max(2, round(share * len(pids))) if share > 0 else 0
    if len(pids) - count < 2:
        raise UserError(f"holdout: {share} of {len(pids)} identities leaves fewer than two to train on")
    chosen = np.random.default_rng([seed, 1]).choice(pids, count, replace=False)
    held = np.isin(train.pids, chosen)
    return train.subset(~held), train.subset(held)


def split_images(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Split the images of every identity: (1 - share, share). An identity with one image is in both.

    Every identity keeps at least one image on each side, so that both know all classes.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(train))
    by_pid = order[np.argsort(train.pids[order], kind="stable")]
    _, start, count = np.unique(train.pids[by_pid], return_index=True, return_counts=True)
    rank = np.arange(len(train)) - np.repeat(start, count)  # of an image among those of its identity
    taken = np.clip(np.round(share * count), 1, np.maximum(count - 1, 1))
    second = rank < np.repeat(taken, count)
    first = ~second | (np.repeat(count, count) == 1)
    in_first, in_second = np.zeros(len(train), bool), np.zeros(len(train), bool)
    in_first[by_pid], in_second[by_pid] = first, second
    return train.subset(in_first), train.subset(in_second)
