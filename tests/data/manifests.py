"""Manifests of small images, for tests."""

from collections.abc import Callable
from pathlib import Path

Write = Callable[[str], Path]
ROWS = [
    "a/1.jpg,Daisy,barn,train",
    "a/2.jpg,Bella,barn,train",
    "a/3.jpg,Molly,field 2,query",
    "a/4.jpg,Molly,barn,gallery",
    "a/5.jpg,,barn,gallery",
    "a/6.jpg,-1,barn,gallery",
]


def manifest(tmp_path: Path, write: Write, rows: list[str], header: str = "path,identity,camera,split") -> Path:
    for row in rows:
        if row.split(",")[0].endswith(".jpg"):
            write(row.split(",")[0])
    file = tmp_path / "cows.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file
