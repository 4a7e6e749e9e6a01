"""SHA-256 of every file of a list, remembered between runs while size and time of change stay the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import platformdirs

from dnas.errors import UserError
from dnas.run.files import replace_file

VARIABLE = "DNAS_CACHE"
"""Environment variable that names another folder for the cache; `none` turns it off."""


def cache_folder() -> Path | None:
    """Where decoded images and hashes are kept: the user's cache folder, or what `DNAS_CACHE` says."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "none":
        return None
    return Path(wanted) if wanted else Path(platformdirs.user_cache_dir("dnas-reid"))


def content_hashes(files: Sequence[Path]) -> list[bytes]:
    """32 bytes a file.

    Raises:
        UserError: a file cannot be read, by name.
    """
    folder = cache_folder()
    if folder is None:
        return _hashed(files)
    known = folder / "hashes" / f"{listing(files)}.npy"
    try:
        return [row.tobytes() for row in np.load(known)]
    except (OSError, ValueError):
        found = _hashed(files)
    table = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)
    with writing():
        replace_file(known, lambda stream: np.save(stream, table))
    return found


@contextmanager
def writing() -> Iterator[None]:
    """Say what can be done where the cache cannot be written.

    Raises:
        UserError: it cannot: a full disk, or no right to.
    """
    try:
        yield
    except OSError as error:
        folder = cache_folder()
        raise UserError(f"cache: {folder} cannot be written ({error.strerror}); set {VARIABLE}=DIR, or none") from error


def listing(files: Sequence[Path]) -> str:
    """Identifies a list of files by absolute names, sizes and times of change, without reading them."""
    digest = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from error
        digest.update(f"{file.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _hashed(files: Sequence[Path]) -> list[bytes]:
    def one(file: Path) -> bytes:
        try:
            return hashlib.sha256(file.read_bytes()).digest()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, files))
