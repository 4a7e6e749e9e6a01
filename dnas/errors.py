"""The one error that is meant for the person who typed the command."""

from __future__ import annotations

import math


class UserError(Exception):
    """Bad input. The message is one line: the file or key, what was found, what is allowed.

    The command line prints it and exits with code 2; it never shows a traceback for it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The text in one line, with escapes for what a terminal would not print but obey: names come from strangers."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def check_range(config: object, prefix: str, low: float, high: float, *names: str) -> None:
    """Check that settings `names` of a configuration are between `low` and `high`, both allowed.

    Raises:
        UserError: naming the setting, what was found and what is allowed.
    """
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            allowed = f"{low} or more" if math.isinf(high) else f"{low} to {high}"
            raise UserError(f"{prefix}{name}: found {value}, allowed: {allowed}")
