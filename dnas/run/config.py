"""Settings as plain data: dataclasses from parsed YAML, checked key by key."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dnas.errors import UserError

T = TypeVar("T")
MOST = sys.float_info.max
"""Numbers beyond it (and infinity, and what is no number) are refused."""


def check(kind: type, content: object, where: str) -> None:
    """Check plain data against the dataclass `kind` (nested ones too): known keys, values of the right type.

    Args:
        where: the file, for messages.

    Raises:
        UserError: naming the key, what was found and what is allowed.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected keys and values, found {type(content).__name__}")
    hints = get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            raise UserError(f"{where}: unknown key '{key}', allowed: {', '.join(hints)}")
        if is_dataclass(hints[key]):
            check(hints[key], value, f"{where}: {key}")
        elif not _fits(value, hints[key]):
            raise UserError(f"{where}: {key}: found {value!r}, allowed: {_words(hints[key])}")


def takes_null(hint: Any) -> bool:
    """Whether `none` stands for null: a type that takes null, in which it is no word of its own."""
    options = get_args(hint)
    return type(None) in options and not any("none" in get_args(option) for option in options)


def with_nulls(kind: type, content: Any) -> Any:
    """What a file says, with null where it says `none` and the dataclass `kind` (nested ones too) takes null."""
    if not isinstance(content, Mapping):
        return content  # `check` says so
    hints, found = get_type_hints(kind), dict(content)
    for key, value in content.items():
        hint = hints.get(key)
        if is_dataclass(hint):
            found[key] = with_nulls(hints[key], value)
        elif value == "none" and takes_null(hint):
            found[key] = None
    return found


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def expect(content: object, expected: Mapping[str, Any], where: str) -> None:
    """Check that data read from a file has at least the entries of `expected`: names and types, nested ones too.

    Raises:
        UserError: naming the file and the entry.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected keys and values, found {type(content).__name__}")
    for key, kind in expected.items():
        if isinstance(kind, Mapping):
            expect(content.get(key), kind, f"{where}: {key}")
        elif not _fits(content.get(key), kind):
            raise UserError(f"{where}: {key}: found {content.get(key)!r:.80}, expected {_words(kind)}")


def _fits(value: object, hint: Any) -> bool:
    """Whether a value of YAML is of a type: str, int, float, bool, None, a Literal, or one of several."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(part, get_args(hint)[0]) for part in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    if get_origin(hint) is Literal:
        return ", ".join(str(option) for option in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        words = " or ".join(_words(option) for option in get_args(hint))
        return f"{words} (none)" if takes_null(hint) else words
    if get_origin(hint) is list:
        return f"a list, each {_words(get_args(hint)[0])}"
    return "keys and values" if get_origin(hint) is dict else names.get(hint, str(hint))


def from_plain(kind: type[T], content: Any, where: str) -> T:
    """Build the dataclass `kind` (nested ones too) from what a file holds; `none` is null where that is allowed.

    Raises:
        UserError: an unknown or missing key, or a value of another type.
    """
    content = with_nulls(kind, content)
    check(kind, content, where)
    hints = get_type_hints(kind)
    values = {
        key: from_plain(hints[key], value, f"{where}: {key}") if is_dataclass(hints[key]) else value
        for key, value in content.items()
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error
