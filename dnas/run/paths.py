"""Where the files are that a run names, when it is looked at from another working folder, or after a move."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dnas.errors import UserError

T = TypeVar("T")
KEYS = ("data", "test_on", "weights")
"""Settings that name files which a run does not copy."""


def started_in(run: Path) -> str | None:
    """The working folder as it is seen from a run's folder; none where there is no way (another drive)."""
    try:
        return Path(os.path.relpath(Path.cwd(), run.absolute())).as_posix()
    except ValueError:
        return None


def bases(run: Path, started: object) -> list[Path]:
    """Folders that relative paths of a run are looked up from: where it was started, its own, the working folder."""
    there = [Path(os.path.normpath(run.absolute() / started))] if isinstance(started, str) else []
    return [*there, run.absolute(), Path.cwd()]


def with_paths(config: T, folders: Sequence[Path]) -> T:
    """A run's settings with the files they name as they are found from here; what is not found stays as it is."""
    values: dict[str, Any] = {key: getattr(config, key, None) for key in KEYS}
    found = {key: _located(value, folders) for key, value in values.items() if isinstance(value, str)}
    changed: T = replace(config, **found)  # type: ignore[type-var]
    return changed


def _located(text: str, folders: Sequence[Path]) -> str:
    """One path, or several with commas between."""
    parts = [text] if any((base / text).exists() for base in folders) else text.split(",")
    return ",".join(
        next((str(base / part) for base in folders if (base / part).exists()), part) if part else part for part in parts
    )


def check_there(data: str, folders: Sequence[Path]) -> None:
    """Refuse data that are not where the run's settings say.

    Raises:
        UserError: naming them, where they were looked for, and how to say where they are.
    """
    if Path(data).exists():
        return
    for part in data.split(","):
        if not Path(part).exists():
            looked = ", ".join(dict.fromkeys(str(base) for base in folders))
            raise UserError(f"data: {part}: not there (looked in {looked}); say where it is: --data ROOT")
