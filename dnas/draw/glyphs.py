"""Letters that no installed font has: said in one line, where matplotlib would warn at every one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dnas.run.progress import errors

MISSING = re.compile(r"Glyph (\d+) .*missing from")
SAID: set[str] = set()
"""Letters that were spoken of already."""


@contextmanager
def missing_glyphs() -> Iterator[None]:
    """Draw inside a `with` block; letters that are drawn as a box are named once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    lacking: set[str] = set()
    for warning in caught:
        found = MISSING.match(str(warning.message))
        if found:
            lacking.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if new := sorted(lacking - SAID):
        SAID.update(new)
        errors.print(f"dnas: no installed font has {' '.join(new)}: drawn as a box", markup=False)
