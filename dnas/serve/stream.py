"""Vectors of any number of files: read ahead by threads, in batches, with memory that does not grow.

Shapes: B good pictures of a batch, D embedding.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dnas.data.picture import BadImage, read_pixels
from dnas.data.usable import OnBadImage
from dnas.serve.network import Embedder, Pixels, Vectors

AHEAD = 3
"""Batches that are read while one is embedded."""


@dataclass(frozen=True)
class Embedded:
    """One batch.

    Args:
        rows: (B) which of the files these are.
        vectors: (B, D).
        bad: row -> why its file cannot be read.
    """

    rows: NDArray[np.int64]
    vectors: Vectors
    bad: dict[int, str] = field(default_factory=dict)


def embed_files(
    embedder: Embedder, paths: Sequence[str], batches: Iterable[range], on_bad_image: OnBadImage = "stop"
) -> Iterator[Embedded]:
    """Vectors of files, a batch at a time and in order.

    Args:
        batches: rows of `paths` that make a batch.
        on_bad_image: `skip` goes on without what cannot be read.

    Raises:
        BadImage: a file cannot be read, where that stops.
    """
    size = (embedder.interface.height, embedder.interface.width)
    waiting: deque[tuple[NDArray[np.int64], dict[int, str]]] = deque()

    def good() -> Iterator[Pixels]:
        for rows, pixels, bad in read_batches(paths, batches, size, on_bad_image):
            waiting.append((rows, bad))
            if len(rows):
                yield pixels

    def nothing() -> Iterator[Embedded]:  # batches without a good picture: the network does not see them
        while waiting and not len(waiting[0][0]):
            yield Embedded(waiting[0][0], np.empty((0, embedder.interface.embedding), np.float32), waiting.popleft()[1])

    for vectors in embedder.network.stream(good()):
        yield from nothing()
        rows, bad = waiting.popleft()
        yield Embedded(rows, vectors, bad)
    yield from nothing()


def read_batches(
    paths: Sequence[str], batches: Iterable[range], size: tuple[int, int], on_bad_image: OnBadImage
) -> Iterator[tuple[NDArray[np.int64], Pixels, dict[int, str]]]:
    """Rows (B), pixels (B, H, W, 3) and what was wrong with the others, read ahead by as many threads as cores."""

    def one(path: str, pixels: Pixels) -> BadImage | None:
        try:
            pixels[:] = read_pixels(Path(path), *size)
        except BadImage as error:
            if on_bad_image == "stop" or (error.passing and os.path.exists(path)):
                raise
            return error
        return None

    Job = tuple[range, Pixels, list[Future[BadImage | None]]]

    def submit(rows: range, pool: ThreadPoolExecutor) -> Job:
        pixels = np.empty((len(rows), *size, 3), np.uint8)
        return rows, pixels, [pool.submit(one, paths[row], pixels[k]) for k, row in enumerate(rows)]

    def finish(job: Job) -> tuple[NDArray[np.int64], Pixels, dict[int, str]]:
        rows, pixels, futures = job
        errors = [future.result() for future in futures]
        kept = np.array([error is None for error in errors], np.bool_)
        bad = {row: error.reason for row, error in zip(rows, errors, strict=True) if error is not None}
        return np.asarray(rows, np.int64)[kept], pixels if kept.all() else pixels[kept], bad

    pool, jobs = ThreadPoolExecutor(os.cpu_count()), deque[Job]()
    try:
        for rows in batches:
            jobs.append(submit(rows, pool))
            if len(jobs) > AHEAD:
                yield finish(jobs.popleft())
        while jobs:
            yield finish(jobs.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
