"""Settings as plain data: dataclasses from parsed YAML, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

from dnas.errors import UserError

T = TypeVar("T")


def check_keys(kind: type, content: object, where: str) -> None:
    """Check that plain data has only keys that the dataclass `kind` (nested ones too) knows.

    Args:
        where: the file, for messages.

    Raises:
        UserError: an unknown key, or something else than keys and values.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected keys and values, found {type(content).__name__}")
    hints = get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            raise UserError(f"{where}: unknown key '{key}', allowed: {', '.join(hints)}")
        if is_dataclass(hints[key]):
            check_keys(hints[key], value, f"{where}: {key}")


def from_plain(kind: type[T], content: Any, where: str) -> T:
    """Build the dataclass `kind` (nested ones too) from what a run's config.yaml holds.

    Raises:
        UserError: an unknown or missing key.
    """
    check_keys(kind, content, where)
    hints = get_type_hints(kind)
    values = {
        key: from_plain(hints[key], value, f"{where}: {key}") if is_dataclass(hints[key]) else value
        for key, value in content.items()
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error
