"""A description as plain JSON values, and its hash: what genotypes and latency tables know a space by.

A field that comes to a description later must not change what was written before. `added` says which of its values
does what was done without it: there the field is left out, so spaces that have it keep their hash, and genotypes their
space. Any other value is in the hash, the default too if it is another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T")
BEFORE, MARK = "before", "mark"


def added(default: T, before: T) -> T:
    """A field of a description that was added after spaces with the description were shipped.

    Args:
        default: its value where none is given.
        before: the value that does what was done before there was the field; often the same.
    """
    return field(default=default, metadata={BEFORE: before})


def mark(default: T) -> T:
    """A field that says what a part is and changes nothing of what is computed: never in the hash."""
    return field(default=default, metadata={MARK: True})


def plain(spec: Any) -> Any:
    """A description as JSON values, class names included; no marks, no added fields that do what was done before."""
    if is_dataclass(spec) and not isinstance(spec, type):
        values = {f.name: getattr(spec, f.name) for f in fields(spec) if not _left_out(spec, f)}
        return {"is": type(spec).__name__, **{name: plain(value) for name, value in values.items()}}
    if isinstance(spec, Mapping):
        return {name: plain(part) for name, part in spec.items()}
    if isinstance(spec, tuple | list):
        return [plain(part) for part in spec]
    return spec


def _left_out(spec: Any, part: Field[Any]) -> bool:
    return MARK in part.metadata or (
        BEFORE in part.metadata and bool(getattr(spec, part.name) == part.metadata[BEFORE])
    )


def digest(spec: Any) -> str:
    """16 hex digits of the SHA-256 of the description's JSON."""
    return hashlib.sha256(json.dumps(plain(spec), separators=(",", ":")).encode()).hexdigest()[:16]
