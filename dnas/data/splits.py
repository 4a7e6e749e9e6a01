"""The images of a data set with who is in them and which camera took them, and what can be done to the lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnas.data.hashes import content_hashes
from dnas.data.protocol import ACROSS_CAMERAS, Protocol
from dnas.errors import UserError

FORMAT = "dnas-data/2"
"""Of the fingerprint: another one, and fingerprints do not compare."""
SPLITS = ("train", "query", "gallery")


@dataclass(frozen=True)
class Split:
    """Images with who (identity, `pids`; 0 is a distractor) and where (camera, `camids`), one entry per image.

    Args:
        whole: the list that this is a part of, if it is one: images are decoded once for all of its parts.
        rows: which images of the whole.
        protocol: what a query among them may be matched with.
    """

    files: tuple[Path, ...]
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    whole: Split | None = None
    rows: NDArray[np.int64] | None = None
    protocol: Protocol = ACROSS_CAMERAS

    @staticmethod
    def of(rows: Sequence[tuple[str | Path, int, int]]) -> Split:
        """From (file, identity, camera) of every image."""
        pids, camids = (np.array([row[k] for row in rows], np.int64) for k in (1, 2))
        return Split(tuple(Path(row[0]) for row in rows), pids, camids)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def identities(self) -> int:
        """How many, distractors left out."""
        return len(np.unique(self.pids[self.pids != 0]))

    @property
    def cameras(self) -> int:
        """How many; 0 where the data do not say."""
        return len(np.unique(self.camids)) if self.protocol.known else 0

    @property
    def ids(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Identity and source of every image, for ranking: a query has no match among images of its own source."""
        return self.pids, self.protocol.sources(self.files, self.camids)

    def subset(self, keep: NDArray[np.bool_]) -> Split:
        files = tuple(file for file, kept in zip(self.files, keep, strict=True) if kept)
        rows = np.flatnonzero(keep) if self.rows is None else self.rows[keep]
        return replace(
            self, files=files, pids=self.pids[keep], camids=self.camids[keep], whole=self.whole or self, rows=rows
        )


def together(query: Split, gallery: Split) -> Split:
    """Query and gallery as one list, with the same identities and cameras: decoded together."""
    pids, camids = np.concatenate([query.pids, gallery.pids]), np.concatenate([query.camids, gallery.camids])
    return Split((*query.files, *gallery.files), pids, camids, protocol=query.protocol)


def chained(splits: Sequence[Split]) -> Split:
    """Several training lists as one; every list keeps identities and cameras of its own."""
    if len(splits) == 1:
        return splits[0]
    pids, camids, next_pid, next_camid = [], [], 1, 0
    for split in splits:
        pids.append(split.pids + next_pid)
        camids.append(split.camids + next_camid)
        next_pid = max(next_pid, 1 + int(np.max(pids[-1], initial=0)))
        next_camid = max(next_camid, 1 + int(np.max(camids[-1], initial=0)))
    files = tuple(file for split in splits for file in split.files)
    return Split(files, np.concatenate(pids), np.concatenate(camids), protocol=splits[0].protocol)


@dataclass(frozen=True)
class ReIDData:
    """Training, query and gallery images of one data set.

    Args:
        layout: how it was read: a key of `dnas.data.layouts.LAYOUTS`, or `several`.
        left_out: names of images that could not be read (`dnas.data.usable`).
        ignored: files beside the images, by name, that are not called like images or lie in sub-folders.
    """

    name: str
    layout: str
    train: Split
    query: Split
    gallery: Split
    left_out: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @staticmethod
    def of(name: str, layout: str, splits: Mapping[str, Split], ignored: tuple[str, ...] = ()) -> ReIDData:
        """From its splits by name."""
        train, query, gallery = (splits[split] for split in SPLITS)
        return ReIDData(name, layout, train, query, gallery, ignored=ignored)

    @property
    def protocol(self) -> Protocol:
        """How its images are ranked."""
        return self.train.protocol

    def under(self, protocol: Protocol) -> ReIDData:
        """The same images, ranked in another way."""
        train, query, gallery = (replace(split, protocol=protocol) for split in (self.train, self.query, self.gallery))
        return replace(self, train=train, query=query, gallery=gallery)

    def splits(self) -> dict[str, Split]:
        return {name: getattr(self, name) for name in SPLITS}

    def fingerprint(self) -> dict[str, object]:
        """Counts, and a SHA-256 over names, labels, sizes and contents of every image, in their order."""
        digest = hashlib.sha256()
        counts: dict[str, dict[str, int]] = {}
        for name, split in self.splits().items():
            hashes = content_hashes(split.files)
            for file, pid, camid, content in zip(split.files, split.pids, split.camids, hashes, strict=True):
                digest.update(f"{name}/{file.name}:{pid}:{camid}:".encode("utf-8", "surrogateescape"))
                digest.update(content)
            counts[name] = {"images": len(split), "identities": split.identities, "cameras": split.cameras}
        left_out = {"left_out": list(self.left_out)} if self.left_out else {}
        return {
            "format": FORMAT, "name": self.name, "sha256": digest.hexdigest(), "protocol": self.protocol.cameras,
            **counts, **left_out,
        }  # fmt: skip


def matched(query: Split, gallery: Split) -> NDArray[np.bool_]:
    """Whether each query has an image of its identity and of another source (camera, or image) in the gallery."""
    (pids, sources), (query_pids, query_sources) = gallery.ids, query.ids
    order = np.lexsort((sources, pids))
    known, first, count = np.unique(pids[order], return_index=True, return_counts=True)
    lowest, highest = sources[order][first], sources[order][first + count - 1]
    place = np.searchsorted(known, query_pids).clip(max=max(len(known) - 1, 0))
    if not len(known):
        return np.zeros(len(query), bool)
    there: NDArray[np.bool_] = known[place] == query_pids
    elsewhere: NDArray[np.bool_] = (lowest[place] != query_sources) | (highest[place] != query_sources)
    return there & elsewhere


def check_matches(query: Split, gallery: Split, name: str) -> int:
    """Refuse, before any training, images that no query of which has a match; else, how many queries have one.

    Raises:
        UserError: naming the set.
    """
    count = int(matched(query, gallery).sum())
    if not count:
        hint = "; --cameras ignore ranks without them" if query.protocol.cameras == "other" else ""
        raise UserError(
            f"data: {name}: no image has a match of its identity {query.protocol.elsewhere}, so nothing can be"
            f" ranked{hint}"
        )
    return count


def hold_out(train: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Set identities aside: (the rest, the held-out ones). At least two are held out if `share` > 0.

    Where only some identities can be ranked (they have images of two sources), those decide: half of them, and at
    least two, are drawn first; then come those that cannot be ranked, as wrong answers, then the other half.

    Raises:
        UserError: too few identities to leave two on each side, or fewer than two that can be ranked.
    """
    pids = np.unique(train.pids)
    count = max(2, round(share * len(pids))) if share > 0 else 0
    if len(pids) - count < 2:
        raise UserError(f"holdout: {share} of {len(pids)} identities leaves fewer than two to train on")
    if not count:
        return train.subset(np.ones(len(train), bool)), train.subset(np.zeros(len(train), bool))
    ranked = np.unique(train.pids[matched(train, train)])
    if len(ranked) < 2:
        hint = " (--cameras ignore ranks without cameras)" if train.protocol.cameras == "other" else ""
        raise UserError(
            f"holdout: {len(ranked)} of {len(pids)} training identities has a match {train.protocol.elsewhere};"
            f" decisions need at least two{hint}"
        )
    rng = np.random.default_rng([seed, 1])
    if len(ranked) == len(pids):
        chosen = rng.choice(pids, count, replace=False)
    else:
        first, others = rng.permutation(ranked), rng.permutation(np.setdiff1d(pids, ranked))
        half = max(2, len(ranked) // 2)
        chosen = np.concatenate([first[:half], others, first[half:]])[:count]
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
