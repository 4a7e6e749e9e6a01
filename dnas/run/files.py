"""Durable files: written to a temporary name, flushed, renamed; and read back with one-line errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import torch
import yaml

from dnas.errors import UserError


@contextmanager
def temporary(file: Path) -> Iterator[Path]:
    """A name beside `file` to write to; renamed to `file` at the end, removed after an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{uuid4().hex}.tmp")  # of no other process on any machine
    try:
        yield unfinished
        if unfinished.exists():  # it may have been given another name already
            os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def replace_file(file: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that at every moment either the old or the new content is there, whole."""
    with temporary(file) as unfinished, unfinished.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def write_text(file: Path, text: str) -> None:
    replace_file(file, lambda stream: void(stream.write(text.encode())))


def write_json(file: Path, content: object) -> None:
    write_text(file, json.dumps(content, indent=2) + "\n")


def read_json(file: Path) -> Any:
    """Parsed JSON.

    Raises:
        UserError: missing, unreadable, or not JSON.
    """
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({error})") from error


def read_yaml(file: Path) -> Any:
    """Parsed YAML, plain data only.

    Raises:
        UserError: missing, unreadable, or not YAML.
    """
    try:
        return yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file}: not readable as YAML ({' '.join(str(error).split())})") from error


def write_tensors(file: Path, state: dict[str, Any]) -> None:
    """Tensors and plain data only, so that they load with `weights_only`; flushed to the disk."""
    with file.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())


def save_tensors(file: Path, state: dict[str, Any]) -> None:
    """`write_tensors`, durably."""
    with temporary(file) as unfinished:
        write_tensors(unfinished, state)


def load_tensors(file: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        UserError: missing or damaged.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{file}: no such checkpoint") from None
    except Exception as error:  # a damaged file raises one of many types
        raise UserError(f"{file}: damaged or not a checkpoint ({str(error).splitlines()[0][:200]})") from error
    if not isinstance(state, dict):
        raise UserError(f"{file}: expected a checkpoint, found {type(state).__name__}")
    return state


def void(_: object) -> None:
    """Drop a return value."""
