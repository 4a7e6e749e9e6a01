"""Conditions on what is known about the pictures of a gallery."""

from pathlib import Path

import numpy as np
import pytest

from dnas.serve.gallery import Gallery
from dnas.serve.listing import Value
from dnas.serve.store import Row
from tests.serve.stub import stub


@pytest.mark.parametrize(
    ("where", "met"),
    [
        ("time>=2024", "b c"),
        ("time<2024", "a"),
        ("time>=2024-05-01", "b c"),
        ("time=2024-05-01", "b"),
        ("time!=2023-12-31", "b c d e"),
        ("age>6", "a d"),
        ("age<=7", "a c"),
        ("age<unknown", ""),
        ("age>=unknown", "b"),
        ("age!=7", "b c d e"),
        ("age>7.5", "d"),
        ("path<b", "a"),
        ("path=5", ""),
    ],
)
def test_filters_compare_alike_with_alike(where: str, met: str, tmp_path: Path) -> None:
    times: dict[str, Value] = {"a": "2023-12-31", "b": "2024-05-01", "c": "2025-01-01"}
    ages: dict[str, Value] = {"a": 7, "b": "unknown", "c": 2.5, "d": 12}
    store = Gallery.create(tmp_path / "gallery", stub()).store
    known = {"time": times, "age": ages}
    rows = [Row(name, {key: of[name] for key, of in known.items() if name in of}) for name in "abcde"]
    store.add(rows, [(0, 0)] * 5, np.zeros((5, 12), np.float32))
    assert sorted(row.path for row in store.read([where])) == sorted(met.split())


@pytest.mark.parametrize("column", ["größe", "相机", 'the "inner" size', "c\\d", "a.b", "$", " "])
def test_filters_know_columns_by_any_name(column: str, tmp_path: Path) -> None:
    """What finds nothing removes everything when it is turned round."""
    store = Gallery.create(tmp_path / "gallery", stub()).store
    store.add([Row("a", {column: 3}), Row("b", {column: 4})], [(0, 0)] * 2, np.zeros((2, 12), np.float32))
    met = {sign: [row.path for row in store.read([f"{column}{sign}3"])] for sign in ("=", "!=", ">")}
    assert met == {"=": ["a"], "!=": ["b"], ">": ["b"]}
