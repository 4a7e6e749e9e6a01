"""The recipes that are shipped: configurations known by name (`--config bot`), in the checkout those of `configs/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import dnas
from dnas.errors import UserError

_NAME = re.compile(r"[\w-]+")


def folder() -> Path:
    """Where the recipes are: a part of the installed package, or a folder of the checkout."""
    package = Path(dnas.__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def recipes() -> dict[str, Path]:
    """Every recipe's file, by its name."""
    return {file.stem: file for file in sorted(folder().glob("*.yaml"))}


def with_files(words: Sequence[str]) -> list[str]:
    """Typed words in which `--config NAME` has become `--config FILE`. A name has no ending; a path is left as it is.

    Raises:
        UserError: no such recipe, and no such file.
    """
    found = list(words)
    for number, word in enumerate(words):
        if word.startswith("--config="):
            found[number] = f"--config={_file(word[9:])}"
        elif number and words[number - 1] == "--config":
            found[number] = _file(word)
    return found


def _file(name: str) -> str:
    known = recipes()
    if name in known:
        return str(known[name])
    if _NAME.fullmatch(name) and not Path(name).is_file():
        raise UserError(f"config: found '{name}', allowed: a file, or one of {', '.join(known)}")
    return name
