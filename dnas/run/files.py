"""Durable files: written to a temporary name, flushed, renamed; and read back with one-line errors."""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from dnas.errors import UserError

MOST_BYTES, MOST_DEPTH = 32 << 20, 40
"""Limits of JSON and YAML files."""

NPZ_ERRORS = (
    OSError, ValueError, KeyError, IndexError, EOFError, MemoryError, RuntimeError, TypeError, AttributeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a damaged .npz raises; a RuntimeError where it is encrypted or packed in a way unknown here."""


@contextmanager
def temporary(file: Path) -> Iterator[Path]:
    """A name beside `file` to write to; renamed to `file` at the end, removed after an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{uuid4().hex}.tmp")  # of no other process on any machine
    try:
        yield unfinished
        if unfinished.exists():  # it may have been given another name already
            os.replace(unfinished, file)
    except OSError as error:  # a full disk, say: name the file that was meant
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def replace_file(file: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that at every moment either the old or the new content is there, whole."""
    with temporary(file) as unfinished, unfinished.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def write_text(file: Path, text: str) -> None:
    """As UTF-8; names of files that are not UTF-8 as they are."""
    replace_file(file, lambda stream: void(stream.write(text.encode("utf-8", "surrogateescape"))))


def write_json(file: Path, content: object) -> None:
    write_text(file, json.dumps(content, indent=2) + "\n")


def read_json(file: Path) -> Any:
    """Parsed JSON, of limited size and depth.

    Raises:
        UserError: missing, unreadable, not JSON, too large or too deep.
    """
    try:
        return _limited(json.loads(_text(file)), file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({_line(error)})") from error


def read_column(file: Path, column: str) -> NDArray[Any]:
    """One array of a .npz file.

    Raises:
        UserError: missing, unreadable, or without this column.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            found: NDArray[Any] = content[column]
            return found
    except NPZ_ERRORS as error:
        raise UserError(f"{file}: not readable ({error})") from error


class _PlainLoader(yaml.SafeLoader):
    """No tags of Python, and no aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: yaml.nodes.Node | None, index: int) -> yaml.nodes.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)


_PlainLoader.add_implicit_resolver(  # as YAML 1.2 has it: 1.1 wants a dot and a sign, 1.0e-4
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(file: Path) -> Any:
    """Parsed YAML, plain data only, of limited size and depth.

    Raises:
        UserError: missing, unreadable, not YAML, too large or too deep.
    """
    try:
        return _limited(yaml.load(_text(file), _PlainLoader), file)  # a safe loader
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{file}: not readable as YAML ({_line(error)})") from error


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{file}: larger than {MOST_BYTES >> 20} MB, which no such file is")
    return content.decode()


def _limited(content: Any, file: Path) -> Any:
    """Refuse data that is nested too deeply to be walked through."""
    level = [content]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return content
    raise UserError(f"{file}: nested more than {MOST_DEPTH} levels deep, which no such file is")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def write_tensors(file: Path, state: dict[str, Any]) -> None:
    """Tensors and plain data only, so that they load with `weights_only`; flushed to the disk."""
    with file.open("wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch ends its archive even where a write has failed
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
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
        _refuse_bomb(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch remarks about a damaged file is for its own developers
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{file}: no such checkpoint") from None
    except UserError:
        raise
    except Exception as error:  # a damaged file raises one of many types
        raise UserError(f"{file}: damaged or not a checkpoint ({_line(error) or type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UserError(f"{file}: expected a checkpoint, found {type(state).__name__}")
    return state


def _refuse_bomb(file: Path) -> None:
    """torch writes its archives uncompressed; what would grow when it is read was not written by it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > file.stat().st_size:
            raise UserError(f"{file}: {size} bytes in an archive of {file.stat().st_size}: not written by torch")


def void(_: object) -> None:
    """Drop a return value."""
