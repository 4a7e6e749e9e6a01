"""Images that are there twice: the same bytes, or nearly the same picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dnas.data.hashes import content_hashes
from dnas.data.splits import ReIDData

THUMBNAIL = (4, 8)
"""Width and height that pictures are reduced to, in three colours."""
NEAR = 0.1
"""Largest distance of two near-copies: the norm of the difference over that of the contrast. On 600 synthetic
pedestrians another size gives up to 0.04, JPEG again at quality 75 up to 0.08 and at quality 30 0.05 (median); the
nearest other picture, of the same person by the same camera, is 0.18 away."""
FLAT = 2.0
"""Pictures of less contrast (standard deviation in levels of 255) have no near-copies: all of them look the same."""
NEIGHBOURS = 8
"""Nearest test images that are looked at of every image."""


@dataclass
class Copies:
    """Pairs of files with the same bytes ("A and B"), by what they spoil.

    Args:
        leaks: one in training, one in test.
        labels: two identities, so one of them is wrong.
        answers: a query and a gallery image of its identity from another source: the query is its own match.
        within: any others.
    """

    leaks: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    within: list[str] = field(default_factory=list)


def copies(data: ReIDData) -> Copies:
    """Every file whose bytes came before, with the file where they did; itself, where it is listed again.

    An image that is query and gallery as what it is (a manifest's split `test`) is none.
    """
    found, by_camera = Copies(), data.protocol.cameras == "other"
    seen: dict[bytes, list[tuple[str, Path, int, int]]] = {}
    for name, split in data.splits().items():
        columns = (split.files, split.pids.tolist(), split.camids.tolist(), content_hashes(split.files))
        for file, pid, camid, content in zip(*columns, strict=True):
            itself = {"gallery": ("query", file, pid, camid)}.get(name)
            before = [one for one in seen.setdefault(content, []) if one != itself]
            other_side = [one for one in before if one[0] != name and "train" in (one[0], name)]
            own_query = [one for one in before if one[0] == "query" != name and one[2] == pid != 0 and one[3] != camid]
            own_query = own_query if by_camera else []  # else it is left out of its own gallery
            for kind, pairs in ((found.leaks, other_side), (found.answers, own_query)):
                kind += [f"{pairs[0][1]} and {file}"] if pairs else []
            if before and not other_side and not own_query:
                same = before[0][2] == pid
                (found.within if same else found.labels).append(f"{before[0][1]} and {file}")
            seen[content].append((name, file, pid, camid))
    return found


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture as few numbers, for `near_copies`."""
    return np.asarray(picture.resize(THUMBNAIL, Image.Resampling.BOX, reducing_gap=2.0)).reshape(-1)


def near_copies(data: ReIDData, thumbnails_NT: NDArray[np.uint8]) -> list[str]:
    """Pairs of nearly the same picture in training and test, or of a query and what it may be matched with.

    Files of the same bytes are not among them.

    Args:
        thumbnails_NT: `thumbnail` of every image of train, query and gallery, in this order.
    """
    splits = list(data.splits().values())
    files = [file for split in splits for file in split.files]
    content = np.frombuffer(b"".join(content_hashes(files)), np.uint8).reshape(-1, 32)
    camids = np.concatenate([split.camids for split in splits])
    side = np.repeat(np.arange(3), [len(split) for split in splits])
    plain_NT = thumbnails_NT.astype(np.float32)
    plain_NT -= plain_NT.mean(1, keepdims=True)
    norm_N = np.linalg.norm(plain_NT, axis=1)
    looked = np.flatnonzero(norm_N > FLAT * plain_NT.shape[1] ** 0.5)
    unit_NT = plain_NT / np.maximum(norm_N, 1e-9)[:, None]
    pairs: list[str] = []
    for asking, answering in ((0, (1, 2)), (1, (2,))):
        asked, there = looked[side[looked] == asking], looked[np.isin(side[looked], answering)]
        if not len(asked) or not len(there):
            continue
        from scipy.spatial import KDTree  # slow to import

        distance, place = KDTree(unit_NT[there]).query(
            unit_NT[asked], NEIGHBOURS, distance_upper_bound=NEAR, workers=-1
        )
        row, column = np.nonzero(np.isfinite(distance))
        first, second = asked[row], there[place[row, column]]
        other = (content[first] != content[second]).any(1) & (
            (asking == 0) | (camids[first] != camids[second]) | (data.protocol.cameras == "ignore")
        )
        pairs += [f"{files[a]} and {files[b]}" for a, b in zip(first[other], second[other], strict=True)]
    return pairs
