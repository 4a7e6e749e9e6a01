"""Decode once into a memory-mapped cache of uint8 pixels: every later epoch and run works on tensors.

Shapes: N images, B batch, H W pixels.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnas.data.hashes import cache_folder, content_hashes, writing
from dnas.data.picture import read_pixels
from dnas.data.splits import Split
from dnas.errors import UserError
from dnas.imagenet import MEAN, STD
from dnas.run.files import temporary

DAY = 86400.0
"""Seconds after which an unfinished file of the cache is nobody's."""
VERSION = "upright bilinear antialiased uint8 NHWC 3"
"""Of what the cache holds; another text, and everything is decoded again."""


@dataclass(frozen=True)
class Batch:
    """A few images: `rows` (B) of `pixels` (M, H, W, 3) uint8, which on a CPU are all there are; labels (B)."""

    pixels: Tensor
    rows: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Images:
    """Decoded images of a split.

    Args:
        pixels: (M, H, W, 3) uint8, perhaps memory-mapped, perhaps of more images than these.
        rows: (N) which of them these images are.
        labels: (N) 0..C-1.
        pids, camids: identities and cameras.
        sources: (N) what a query is not matched within (`dnas.data.protocol`); the cameras without.
    """

    pixels: Tensor
    rows: Tensor
    labels: Tensor
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    sources: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return int(self.labels.max()) + 1

    def take(self, index: Tensor, device: torch.device) -> Batch:
        """Some of the images, on the device."""
        rows, labels = self.rows[index], self.labels[index]
        if device.type == "cpu":
            return Batch(self.pixels, rows, labels)
        pixels = self.pixels.index_select(0, rows)
        if device.type == "cuda":  # from pinned memory the copy does not hold up the host
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        everything = torch.arange(len(rows), device=device)
        return Batch(pixels.to(device, non_blocking=True), everything, labels.to(device, non_blocking=True))

    def stream(self, batches: Iterable[NDArray[np.int64]], device: torch.device) -> Iterator[Batch]:
        """`take` for one batch of indices after the other; read and sent while the one before is being used."""
        indices = (torch.from_numpy(batch) for batch in batches)
        if device.type == "cpu":
            yield from (self.take(index, device) for index in indices)
            return
        # pinning is for the current device of the thread that does it
        prepare = partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        with ThreadPoolExecutor(1, initializer=prepare) as pool:
            waiting: Future[Batch] | None = None
            for index in indices:
                following = pool.submit(self.take, index, device)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def subset(self, keep_N: Tensor) -> Images:
        """The images where `keep_N` is true, relabelled."""
        kept = keep_N.numpy()
        labels = torch.unique(self.labels[keep_N], return_inverse=True)[1]
        return replace(self._part(keep_N, kept), labels=labels)

    def shard(self, number: int, count: int) -> Images:
        """Every `count`-th image from `number` on, with the same labels: the share of one of several processes."""
        mine = slice(number, None, count)
        return self._part(mine, mine)

    def _part(self, rows: Tensor | slice, same: NDArray[np.bool_] | slice) -> Images:
        """Some of the images: which of them for torch, and for numpy."""
        sources = None if self.sources is None else self.sources[same]
        labels = self.labels[rows]
        return Images(self.pixels, self.rows[rows], labels, self.pids[same], self.camids[same], sources)

    @property
    def ids(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Identity and source of every image, for ranking."""
        return self.pids, self.camids if self.sources is None else self.sources

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """All images in order, normalised, in batches for inference."""
        for batch in self.stream(np.array_split(np.arange(len(self)), range(size, len(self), size)), device):
            yield normalise(batch.pixels.index_select(0, batch.rows))


def decode(split: Split, height: int, width: int) -> Images:
    """Every image of a split, decoded and resized (bilinear, antialiased); from the cache if it was done before.

    The cache (`dnas.data.hashes.cache_folder`) knows images by their contents, order and size.

    Raises:
        UserError: an image that cannot be read, by name.
    """
    labels = torch.from_numpy(np.unique(split.pids, return_inverse=True)[1].astype(np.int64))
    folder = cache_folder()
    if folder is None:
        memory = np.empty((len(split), height, width, 3), np.uint8)
        _decode_into(memory, split.files)
        pixels, rows = torch.from_numpy(memory), torch.arange(len(split))
    else:
        whole = split.whole or split
        key = hashlib.sha256(f"{VERSION} {height} {width}".encode())
        for content in content_hashes(whole.files):
            key.update(content)
        pixels = _cached(folder / "images" / f"{key.hexdigest()}.npy", whole.files, height, width)
        rows = torch.arange(len(split)) if split.rows is None else torch.from_numpy(split.rows)
    return Images(pixels, rows, labels, split.pids, split.camids, split.ids[1])


def _cached(file: Path, files: tuple[Path, ...], height: int, width: int) -> Tensor:
    """The pixels in a file of the cache, made if it is not there or not whole."""
    shape = (len(files), height, width, 3)
    if not files:
        return torch.empty(shape, dtype=torch.uint8)
    pixels = _mapped(file, shape)
    if pixels is None:
        for stale in file.parent.glob(".*.tmp"):  # of a process that was killed
            if time.time() - stale.stat().st_mtime > DAY:
                stale.unlink(missing_ok=True)
        with writing(), temporary(file) as unfinished:
            memory = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here; later it would end the process
                with unfinished.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, unfinished.stat().st_size)
            _decode_into(memory, files)
            memory.flush()
        pixels = _mapped(file, shape)
    if pixels is None:
        raise UserError(f"{file}: not what the cache should hold; delete it")
    return pixels


def _mapped(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The pixels of a file as a tensor that nobody writes to; none if it is not there or not whole."""
    try:
        pixels = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if pixels.shape != shape or pixels.dtype != np.uint8:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def _decode_into(pixels: NDArray[np.uint8], files: tuple[Path, ...]) -> None:
    """Decode every file into its row of (N, H, W, 3), in parallel."""

    def one(index: int) -> None:
        pixels[index] = read_pixels(files[index], *pixels.shape[1:3])

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(files))))


def normalise(pixels: Tensor, out: Tensor | None = None) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) with ImageNet's statistics, channels last in memory.

    Args:
        out: (B, H, W, 3) float32 to write to.
    """
    b, h, w, c = pixels.shape
    scale_X, shift_X = _statistics(pixels.device, w)
    # whole rows at a time: three channels alone are too few to be fast
    rows_BHX = torch.empty(b, h, w * c, device=pixels.device) if out is None else out[:b].view(b, h, w * c)
    rows_BHX.copy_(pixels.reshape(b, h, w * c))
    return torch.addcmul(shift_X, rows_BHX, scale_X, out=rows_BHX).view(b, h, w, c).permute(0, 3, 1, 2)


@lru_cache
def _statistics(device: torch.device, width: int) -> tuple[Tensor, Tensor]:
    """Factor and summand for a row of pixels of 0 to 255, once per device: making them anew would wait for it."""
    mean, std = (torch.tensor(values, dtype=torch.float64).repeat(width) for values in (MEAN, STD))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)


@lru_cache
def mean_colour(device: torch.device, width: int) -> Tensor:
    """A row of pixels of ImageNet's mean colour, in whole numbers of one byte."""
    return torch.tensor(MEAN).mul(255).round().to(torch.uint8).repeat(width).to(device)
