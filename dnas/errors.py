"""The one error that is meant for the person who typed the command."""

from __future__ import annotations

import math


class UserError(Exception):
    """Bad input. The message is one line: the file or key, what was found, what is allowed.

    The command line prints it and exits with code 2; it never shows a traceback for it.
    """


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
