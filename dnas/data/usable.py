"""Leave out the images that cannot be used, where that is wanted; and remember which they were."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dnas.data.hashes import cache_folder, listing, writing
from dnas.data.picture import BadImage, read_rgb
from dnas.data.splits import ReIDData, Split
from dnas.errors import UserError, printable
from dnas.run import distributed
from dnas.run.files import replace_file
from dnas.run.progress import errors

OnBadImage = Literal["stop", "skip"]
SHOWN = 5
"""Names in the line for people; the run folder has all of them."""


def without_bad(data: ReIDData) -> ReIDData:
    """The data set without the images that cannot be read; says which on the terminal, and keeps their names."""
    splits = data.splits()
    found = _readable([file for split in splits.values() for file in split.files])
    kept: dict[str, Split] = {}
    left_out: list[str] = []
    start = 0
    for name, split in splits.items():
        good = found[start : start + len(split)]
        start += len(split)
        left_out += [f"{name}/{file.name}" for file, fine in zip(split.files, good, strict=True) if not fine]
        kept[name] = split if good.all() else replace(split.subset(good), whole=None, rows=None)  # decoded without them
    if left_out:
        say_left_out(left_out, "images that cannot be read")
    return replace(data, train=kept["train"], query=kept["query"], gallery=kept["gallery"], left_out=tuple(left_out))


def say_left_out(names: Sequence[str], what: str) -> None:
    """One line for people, by the first of several processes."""
    text = f"dnas: left out {len(names)} {what}: {', '.join(names[:SHOWN])}" + (", ..." if len(names) > SHOWN else "")
    if distributed.rank() == 0:
        errors.print(printable(text), markup=False)


def _readable(files: Sequence[Path]) -> NDArray[np.bool_]:
    """Which files are images, decoded to the last row; remembered between runs like their hashes."""
    folder = cache_folder()
    try:
        known = folder / "hashes" / f"{listing(files)}-readable.npy" if folder else None
    except UserError:  # one is not even there
        known = None
    if known is not None:
        try:
            found: NDArray[np.bool_] = np.load(known)
            if found.shape == (len(files),) and found.dtype == np.bool_:
                return found
        except (OSError, ValueError):
            pass

    def good(file: Path) -> bool:
        try:
            read_rgb(file)
        except BadImage as error:
            if error.passing and file.exists():
                raise
            return False
        return True

    with ThreadPoolExecutor() as pool:
        found = np.array(list(pool.map(good, files)), np.bool_)
    if known is not None:
        with writing():
            replace_file(known, lambda stream: np.save(stream, found))
    return found
