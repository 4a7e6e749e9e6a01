"""Arrows point one way: which package may import which, read from one list."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "dnas/space": (
        "dnas.search",
        "dnas.loss",
        "dnas.data",
        "dnas.eval",
        "dnas.draw",
        "retrain",
        "search_spaces",
        "dnas.cli",
    ),
    "dnas/nn": (
        "dnas.search",
        "dnas.loss",
        "dnas.data",
        "dnas.eval",
        "dnas.draw",
        "retrain",
        "search_spaces",
        "dnas.cli",
    ),
    "dnas/loss": ("dnas.search", "retrain", "search_spaces", "dnas.cli"),
    "dnas/data": ("dnas.search", "retrain", "search_spaces", "dnas.cli"),
    "dnas/eval": ("dnas.search", "retrain", "search_spaces", "dnas.cli"),
    "dnas/run": ("dnas.search", "retrain", "search_spaces", "dnas.cli"),
    "dnas/draw": ("dnas.search", "retrain", "search_spaces", "dnas.cli"),
    "dnas/search": ("retrain", "search_spaces", "dnas.cli"),
    "search_spaces": (
        "dnas.search",
        "dnas.loss",
        "dnas.data",
        "dnas.eval",
        "dnas.draw",
        "dnas.run",
        "retrain",
        "dnas.cli",
    ),
    "retrain": ("dnas.search", "dnas.cli"),
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_import_rules(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            for name in names:
                broken = [rule for rule in FORBIDDEN[package] if name == rule or name.startswith(rule + ".")]
                assert not broken, f"{file.relative_to(ROOT)} imports {name}"
