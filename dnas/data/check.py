"""What is wrong with a data set, before anything trains on it; and how it compares with what was published.

Published counts: the papers and pages of the sets' authors; junk (-1) and distractors (0) are no identities. Training
on MSMT17 is on list_train and list_val together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnas.data.copies import THUMBNAIL, copies, near_copies, thumbnail
from dnas.data.picture import BadImage, read_upright
from dnas.data.splits import SPLITS, ReIDData, matched

Counts = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""(images, identities) of train, query and gallery."""


@dataclass(frozen=True)
class Published:
    """A data set as its authors describe it; `note`: what a user should know before using it."""

    layout: str
    counts: Counts
    cameras: int
    note: str = ""


WITHDRAWN = (
    "withdrawn by its authors in 2019: the people in it were recorded without their consent; do not use it for new work"
)
PUBLISHED: Mapping[str, Published] = {
    "Market-1501": Published("market", ((12936, 751), (3368, 750), (15913, 750)), 6),
    "DukeMTMC-reID": Published("market", ((16522, 702), (2228, 702), (17661, 1110)), 8, WITHDRAWN),
    "Occluded-Duke": Published("market", ((15618, 702), (2210, 519), (17661, 1110)), 8, WITHDRAWN),
    "CUHK03-NP, labelled": Published("market", ((7368, 767), (1400, 700), (5328, 700)), 2),
    "CUHK03-NP, detected": Published("market", ((7365, 767), (1400, 700), (5332, 700)), 2),
    "MSMT17 v1": Published(
        "msmt17_v1",
        ((32621, 1041), (11659, 3060), (82161, 3060)),
        15,
        "the first version is no longer given out by its authors; the second one has faces masked",
    ),
    "MSMT17 v2": Published("msmt17_v2", ((32621, 1041), (11659, 3060), (82161, 3060)), 15),
    "Occluded-REID": Published("occluded_reid", ((0, 0), (1000, 200), (1000, 200)), 2),
    "VeRi-776": Published("veri", ((37778, 576), (1678, 200), (11579, 200)), 20),
}
PRIVACY = (
    "Pictures of people (or number plates) are personal data: use a set whose people agreed, for what they agreed to."
)
SHOWN = 5
"""Names listed for each finding."""


@dataclass(frozen=True)
class Finding:
    """Something about a data set: a `problem` makes training or testing wrong, a `remark` may be meant."""

    kind: str
    text: str


def published_name(data: ReIDData) -> str | None:
    """Which published set this seems to be: of its layout, with as many training (or query) images, within 5 %."""
    best: tuple[float, str] | None = None
    for name, known in PUBLISHED.items():
        if known.layout == data.layout:
            number = 0 if known.counts[0][0] else 1
            images = len(getattr(data, SPLITS[number]))
            off = abs(images / known.counts[number][0] - 1)
            if off < 0.05 and (best is None or off < best[0]):
                best = (off, name)
    return best[1] if best else None


def check(data: ReIDData) -> tuple[dict[str, Any], list[Finding]]:
    """A summary (counts, sizes, published counts, fingerprint) and everything that was found."""
    look = Look.of(data)
    findings = list(_pictures(look))
    if not look.unreadable:
        findings += _copies(data, look)
    findings += _protocol(data, bool(look.unreadable))
    name = published_name(data)
    summary: dict[str, Any] = {"layout": data.layout, "looks_like": name, "sizes": look.sizes()}
    summary["fingerprint"] = None if look.unreadable else data.fingerprint()
    if name:
        known = PUBLISHED[name]
        summary["published"] = dict(zip(SPLITS, known.counts, strict=True))
        if known.note:
            findings.append(Finding("remark", f"{name}: {known.note}"))
    return summary, findings


@dataclass(frozen=True)
class Look:
    """What decoding every image says; (M) of those that can be read.

    Args:
        unreadable: file and reason.
        turned: files that are upright only because their EXIF orientation was followed.
        size_M2: width and height.
        thumbnail_MT: see `dnas.data.copies`.
    """

    unreadable: list[str]
    turned: list[str]
    size_M2: NDArray[np.int64]
    thumbnail_MT: NDArray[np.uint8]

    @staticmethod
    def of(data: ReIDData) -> Look:
        files = [file for split in data.splits().values() for file in split.files]

        def one(file: Path) -> tuple[bool, tuple[int, int], NDArray[np.uint8]] | str:
            try:
                picture, turned = read_upright(file)
            except BadImage as error:
                return error.reason
            return turned, picture.size, thumbnail(picture)

        with ThreadPoolExecutor() as pool:
            results = list(zip(files, pool.map(one, files), strict=True))
        good = [(file, found) for file, found in results if not isinstance(found, str)]
        return Look(
            [f"{file} ({found})" for file, found in results if isinstance(found, str)],
            [str(file) for file, (turned, _, _) in good if turned],
            np.array([size for _, (_, size, _) in good], np.int64).reshape(-1, 2),
            np.array([small for _, (_, _, small) in good], np.uint8).reshape(-1, 3 * THUMBNAIL[0] * THUMBNAIL[1]),
        )

    def sizes(self) -> str:
        if not len(self.size_M2):
            return "none"
        quantiles = (np.quantile(self.size_M2, q, axis=0).astype(int) for q in (0, 0.5, 1))
        named = zip(("smallest", "median", "largest"), quantiles, strict=True)
        return "width x height in pixels: " + ", ".join(f"{name} {w} x {h}" for name, (w, h) in named)


def _pictures(look: Look) -> Iterable[Finding]:
    """What cannot be decoded, what lies on its side, what is tiny."""
    if look.unreadable:
        yield Finding("problem", f"unreadable: {_listed(look.unreadable)}")
    if look.turned:
        yield Finding("remark", f"turned as their EXIF orientation says: {_listed(look.turned)}")
    if small := int((look.size_M2.min(1, initial=16) < 16).sum()):
        yield Finding("remark", f"images of fewer than 16 pixels: {small}")


def _copies(data: ReIDData, look: Look) -> Iterable[Finding]:
    """The same bytes twice: they leak, answer a query by itself, or show that a label is wrong; and nearly the same."""
    found = copies(data)
    for kind, what, pairs in (
        ("problem", "the same image in training and test", found.leaks),
        ("problem", "the same image under two identities", found.labels),
        ("problem", "queries that lie in the gallery under another camera, and so find themselves", found.answers),
        ("remark", "the same image twice", found.within),
        ("remark", "nearly the same picture in training and test, or in query and gallery", near_copies(
            data, look.thumbnail_MT)),
    ):  # fmt: skip
        if pairs:
            yield Finding(kind, f"{what}: {_listed(pairs)}")


def _protocol(data: ReIDData, unreadable: bool) -> Iterable[Finding]:
    """Identities on both sides, queries that nothing can answer, one camera, identities with one image."""
    where = data.protocol.elsewhere
    if data.ignored:
        yield Finding(
            "remark", f"files left out, not called like images or in sub-folders: {_listed(list(data.ignored))}"
        )
    if not any(map(len, data.splits().values())):
        yield Finding("problem", "no images")
        return
    for name in ("train", "query"):
        if count := int((data.splits()[name].pids == 0).sum()):
            yield Finding("problem", f"identity 0, a distractor, among the {name} images: {count}")
    real = {name: set(split.pids[split.pids != 0].tolist()) for name, split in data.splits().items()}
    if both := real["train"] & (real["query"] | real["gallery"]):
        yield Finding("problem", f"identities in training and test: {_listed([str(pid) for pid in sorted(both)])}")
    if not len(data.query):
        yield Finding("remark", "no query images: it can be trained on, and tested on another set (--test_on)")
    elif not (unreadable and data.protocol.cameras == "ignore"):  # there the bytes tell what is the same image
        answered = matched(data.query, data.gallery)
        if not answered.any():
            hint = "; --cameras ignore ranks without them" if data.protocol.cameras == "other" else ""
            yield Finding("problem", f"no query has a match of its identity {where}{hint}")
        elif not answered.all():
            names = [file.name for file, good in zip(data.query.files, answered, strict=True) if not good]
            yield Finding("remark", f"queries without a match {where} (they do not count): {_listed(names)}")
    if not len(data.train):
        yield Finding("remark", "no training images: it can be tested on (--test_on)")
        return
    if data.train.cameras == 1 and data.protocol.cameras == "other":
        yield Finding("remark", "training images of one camera: nothing across cameras can be learnt")
    pids, counts = np.unique(data.train.pids, return_counts=True)
    if single := [str(pid) for pid in pids[counts == 1]]:
        yield Finding("remark", f"training identities with one image: {_listed(single)}")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{len(names)} ({shown}{', ...' if len(names) > SHOWN else ''})"


def rows(data: ReIDData, summary: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """The table: images, identities and cameras of every split, with the published counts."""
    found = []
    for name, split in data.splits().items():
        published = summary.get("published", {}).get(name)
        beside = f"{published[0]:,} / {published[1]:,}" if published else "-"
        cameras = str(split.cameras) if split.protocol.known else "-"
        found.append((name, f"{len(split):,}", f"{split.identities:,}", cameras, beside))
    return found
