"""Checkpoints of a run: EPOCH-STEP-CHECKSUM.pt, the newest few; a damaged one is passed over for the one before."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnas.errors import UserError
from dnas.run.files import load_tensors, temporary, write_tensors

NAME = re.compile(r"\d{5,}-\d{6,}-([0-9a-f]{16})\.pt")
KEEP = 2
"""How many are kept, unless the configuration says otherwise."""


def save_checkpoint(folder: Path, state: dict[str, Any], epoch: int, step: int, keep: int = KEEP) -> None:
    """Write a checkpoint under a name that says its place and its content, then remove those before the last `keep`."""
    with temporary(folder / "new.pt") as unfinished:
        write_tensors(unfinished, state)
        final = folder / f"{epoch:05d}-{step:06d}-{checksum(unfinished)}.pt"
        unfinished.replace(final)
    before = [file for file in checkpoints(folder) if file != final]
    for old in [*before[keep - 1 :], *folder.glob(".*.tmp")]:  # a kill while writing leaves the second kind
        old.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    names = [file for file in folder.glob("*.pt") if NAME.fullmatch(file.name)] if folder.is_dir() else []
    return sorted(names, reverse=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], list[Path]] | None:
    """The newest whole checkpoint and the damaged ones that were passed over; none if there never was one.

    Raises:
        UserError: all of them are damaged.
    """
    files = checkpoints(folder)
    for number, file in enumerate(files):
        if checksum(file) == _expected(file):
            return load_tensors(file), files[:number]
    if files:
        raise UserError(f"{folder}: damaged (checksum): {', '.join(file.name for file in files)}; no other checkpoint")
    return None


def _expected(file: Path) -> str:
    match = NAME.fullmatch(file.name)
    return match[1] if match else ""


def checksum(file: Path) -> str:
    """16 hex digits of the file's SHA-256."""
    digest = hashlib.sha256()
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()[:16]


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block
