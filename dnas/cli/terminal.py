"""Text for terminals that know few letters: what they lack becomes plainer, and is never an error."""

from __future__ import annotations

import codecs
import io
import os
import sys

PLAIN = {"±": "+-", "…": "...", "–": "-", "→": "->", "×": "x", "≤": "<=", "≥": ">=", "✓": "yes", "✗": "no", "·": "."}
"""For letters of our own."""
HANDLER = "dnas.plain"


def plainer(error: UnicodeError) -> tuple[str, int]:
    """Error handler of encoding: plain words for our own signs, escapes for names in any script."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


def print_anything() -> None:
    """Let standard output and error take any text, whatever their encoding, and also where they are closed."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    codecs.register_error(HANDLER, plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
