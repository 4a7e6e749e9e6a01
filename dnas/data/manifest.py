"""A data set as a table: one line an image, with who is on it."""

from __future__ import annotations

import csv
from pathlib import Path

from dnas.data.splits import SPLITS, Split
from dnas.errors import UserError

COLUMNS = ("path", "identity", "split")
"""Of a manifest; `camera` too where it is known."""
BOTH = "test"
"""Split of a manifest whose images are query and gallery at once: each is left out of its own gallery."""


def read_manifest(file: Path) -> tuple[dict[str, Split], bool]:
    """A CSV file with the columns path (from the file's folder), identity, split, and camera where it is known.

    Identities and cameras are any words; an empty identity is a distractor, -1 is junk. Splits are train, query,
    gallery, and test: query and gallery at once.

    Returns:
        The splits, and whether there is a column for the camera.
    """
    rows: dict[str, list[tuple[Path, int, int]]] = {name: [] for name in SPLITS}
    identities, cameras = {"": 0}, dict[str, int]()
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream)
            columns = lines.fieldnames or ()
            if missing := [name for name in COLUMNS if name not in columns]:
                found, expected = (
                    ", ".join(columns) or "nothing",
                    f"{', '.join(COLUMNS)} (and camera, where it is known)",
                )
                raise UserError(f"{file}: column {missing[0]} is missing, found {found}, expected {expected}")
            known = "camera" in columns
            for line in lines:
                path, who, split, where = ((line.get(name) or "").strip() for name in (*COLUMNS, "camera"))
                parts = ("query", "gallery") if split == BOTH else (split,)
                wrong = not path or "\0" in path or (known and not where) or parts[0] not in rows
                if wrong or (split != "gallery" and not who):
                    expected = f"path, identity,{' camera,' * known} and train, query, gallery or test"
                    raise UserError(f"{file}: line {lines.line_num}: found {dict(line)}, expected {expected}")
                if who == "-1":
                    continue
                pid = identities.setdefault(who, len(identities))
                for part in parts:
                    rows[part].append((file.parent / path, pid, cameras.setdefault(where, len(cameras))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not readable as CSV ({error})") from error
    return {name: Split.of(found) for name, found in rows.items()}, known
