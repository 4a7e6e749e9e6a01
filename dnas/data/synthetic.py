"""The embedded data set: synthetic pedestrians, written in the layout of Market-1501."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from dnas.data.camera import Camera, photograph
from dnas.data.layouts import MARKET as FOLDERS
from dnas.data.pedestrian import Person
from dnas.errors import UserError, check_range

FEW = 16
"""Identities that are drawn sooner than another process has started."""


@dataclass(frozen=True)
class SynthConfig:
    """What to generate.

    Args:
        out: folder to write; it must not exist, or be empty.
        ids: identities; half of them are for training, the others for query and gallery.
        seed: same seed, same bytes.
        cameras: places with their own background, light, viewpoint and sharpness.
        images: images of an identity by each camera that saw it.
        height: pixels.
        width: pixels.
        occluded: every query is occluded (the protocol of Occluded-REID).
    """

    out: str
    ids: int = 120
    seed: int = 0
    cameras: int = 6
    images: int = 6
    height: int = 128
    width: int = 64
    occluded: bool = False

    def __post_init__(self) -> None:
        check_range(self, "", 4, 9999, "ids")
        check_range(self, "", 0, math.inf, "seed")
        check_range(self, "", 2, 99, "cameras", "images")
        check_range(self, "", 16, 1024, "height")
        check_range(self, "", 8, 1024, "width")


def synthesise(config: SynthConfig) -> dict[str, int]:
    """Write the data set. Returns the number of images in each folder.

    Raises:
        UserError: the folder has files already.
    """
    out = Path(config.out).resolve()  # "." alone has no name to put something beside
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out: {config.out} exists and is not an empty folder")
    unfinished = out.with_name(f".{out.name}.unfinished")  # renamed at the end: a folder is there whole or not at all
    shutil.rmtree(unfinished, ignore_errors=True)
    for folder in FOLDERS.values():
        (unfinished / folder).mkdir(parents=True)
    pids = range(1, config.ids + 1)
    write = partial(_write_identity, config, out=unfinished)
    workers = min(os.cpu_count() or 1, config.ids // FEW)
    if workers < 2 or not _can_be_imported():
        written = [write(pid) for pid in pids]
    else:  # a fork of a process with threads (torch's) may hang
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            written = list(pool.map(write, pids, chunksize=max(1, config.ids // (8 * workers))))
    if out.exists():  # it stays the same folder: somebody may be working in it
        for folder in FOLDERS.values():
            (unfinished / folder).replace(out / folder)
        unfinished.rmdir()
    else:
        unfinished.replace(out)
    return {name: sum(folder == name for images in written for folder in images) for name in FOLDERS}


def _can_be_imported() -> bool:
    """Whether a new process can import what was started: it cannot where that is a script on standard input."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return file is None or Path(file).is_file()


def _write_identity(config: SynthConfig, pid: int, out: Path) -> list[str]:
    """Every image of one identity; which split each went to."""
    person = Person.draw(np.random.default_rng([config.seed, 0, pid]))
    written = []
    for name, camid, number in _plan(config, pid):
        rng = np.random.default_rng([config.seed, 2, pid, camid, number])
        camera = Camera.draw(np.random.default_rng([config.seed, 1, camid]), camid)
        occlusion = "some" if not config.occluded else ("strong" if name == "query" else "none")
        if name == "train":
            occlusion = "some"
        picture = photograph(person, camera, rng, config.height, config.width, occlusion)
        file = out / FOLDERS[name] / f"{pid:04d}_c{camid}s1_{pid * 100 + number:06d}_00.jpg"
        picture.save(file, quality=camera.quality)
        written.append(name)
    return written


def _plan(config: SynthConfig, pid: int) -> Iterator[tuple[str, int, int]]:
    """(split, camera, image number) of every image: a person passes 60 to 100 % of the cameras."""
    rng = np.random.default_rng([config.seed, 3, pid])
    least = max(2, round(0.6 * config.cameras))
    seen = rng.choice(config.cameras, int(rng.integers(least, config.cameras + 1)), replace=False) + 1
    train = pid % 2 == 1
    for camid in sorted(int(c) for c in seen):
        for number in range(config.images):
            first = number == 0
            yield ("train" if train else "query" if first else "gallery"), camid, number
