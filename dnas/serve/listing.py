"""Which pictures: files, folders, a CSV manifest, or paths on standard input; and what is known about each."""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnas.data.layouts import IMAGES, NAME
from dnas.errors import UserError

Value = str | int | float
Stamp = tuple[int, int]
"""Size and time of change of a file."""
STDIN = "-"


@dataclass(frozen=True)
class Listing:
    """Pictures in order.

    Args:
        paths: as they were given, those of a folder or manifest below it.
        columns: name -> a value for every picture ("" where there is none): identity, camera, time, anything.
    """

    paths: list[str]
    columns: dict[str, list[Value]]

    def __len__(self) -> int:
        return len(self.paths)

    def stamps(self) -> list[Stamp]:
        """Of the files, as they are now."""
        return [stamp(path) for path in self.paths]

    def digest(self, stamps: Sequence[Stamp]) -> str:
        """Of the paths and of the sizes and times of change of the files: the same pictures as before."""
        found = hashlib.sha256()
        for path, (size, changed) in zip(self.paths, stamps, strict=True):
            found.update(f"{path}\0{size}\0{changed}\0".encode("utf-8", "surrogateescape"))
        return found.hexdigest()


def stamp(path: str) -> Stamp:
    """That of a file; zeros where it is not there."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def list_pictures(sources: Sequence[str], named: bool = False) -> Listing:
    """The pictures of `dnas embed`, `index` and `find`.

    Args:
        sources: files; folders, searched for images below them in name order; CSV manifests with a column `path`
            (relative to the manifest) and any others; "-": a path a line on standard input.
        named: take identity and camera from file names such as 0001_c1s1_000151_00.jpg.

    Raises:
        UserError: a source that is not there, a manifest without paths, or no picture in all of them.
    """
    paths: list[str] = []
    columns: dict[str, list[Value]] = {}
    for source in sources:
        found, known = _manifest(Path(source)) if source.lower().endswith(".csv") else (list(_paths(source)), {})
        for name in known:
            columns.setdefault(name, [""] * len(paths))
        paths += found
        for name, values in columns.items():
            values += known.get(name, [""] * len(found))
    if not paths:
        raise UserError(f"images: {', '.join(sources)}: no images there, expected files such as {', '.join(IMAGES)}")
    if named:
        columns |= _from_names(paths)
    return Listing(paths, columns)


def _paths(source: str) -> Iterator[str]:
    if source == STDIN:
        yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    elif os.path.isdir(source):
        yield from _below(source)
    elif os.path.exists(source):
        yield source
    else:
        raise UserError(f"images: {source}: no such file or folder")


def _below(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        named = (name for name in sorted(files) if name.lower().endswith(IMAGES) and name[:2] != "._")  # macOS's
        yield from (os.path.join(root, name) for name in named)


def _manifest(file: Path) -> tuple[list[str], dict[str, list[Value]]]:
    paths: list[str] = []
    columns: dict[str, list[Value]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream)
            names = [name for name in lines.fieldnames or () if name]
            if "path" not in names:
                raise UserError(f"{file}: column path is missing, found {', '.join(names) or 'nothing'}")
            columns = {name: [] for name in names if name != "path"}
            for line in lines:
                path = (line["path"] or "").strip()
                if not path or "\0" in path:
                    raise UserError(f"{file}: line {lines.line_num}: found no path")
                paths.append(str(file.parent / path))
                for name, values in columns.items():
                    values.append(typed((line[name] or "").strip()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not readable as CSV ({error})") from error
    return paths, columns


def typed(text: str) -> Value:
    """A number where the text is the plain form of one ("7", not "007"), so that filters compare it as one."""
    for kind in (int, float):
        try:
            if str(value := kind(text)) == text and abs(value) < 2**53:
                return value
        except ValueError:
            pass
    return text


def _from_names(paths: Iterable[str]) -> dict[str, list[Value]]:
    columns: dict[str, list[Value]] = {"identity": [], "camera": []}
    for path in paths:
        match = NAME.fullmatch(Path(path).stem)
        if not match:
            raise UserError(f"{path}: file name does not parse; expected IDENTITY_cCAMERA..., as 0001_c1s1_000151_00")
        columns["identity"].append(int(match[1]))
        columns["camera"].append(int(match[2]))
    return columns
