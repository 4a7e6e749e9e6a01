"""Arrows point one way: which package may import which, read from one list; and no circles."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "dnas/space": (
        "dnas.search",
        "dnas.loss",
        "dnas.data",
        "dnas.eval",
        "dnas.draw",
        "dnas.serve",
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
        "dnas.serve",
        "retrain",
        "search_spaces",
        "dnas.cli",
    ),
    "dnas/loss": ("dnas.search", "dnas.serve", "retrain", "search_spaces", "dnas.cli"),
    "dnas/data": ("dnas.search", "dnas.serve", "retrain", "search_spaces", "dnas.cli"),
    "dnas/eval": ("dnas.search", "dnas.serve", "retrain", "search_spaces", "dnas.cli"),
    "dnas/run": (
        "dnas.search",
        "dnas.task.reid",
        "dnas.task.classify",
        "dnas.task.images",
        "dnas.nn.reid_net",
        "dnas.serve",
        "retrain",
        "search_spaces",
        "dnas.cli",
    ),
    "dnas/draw": ("dnas.search", "dnas.serve", "retrain", "search_spaces", "dnas.cli"),
    "dnas/search": (
        "dnas.data",
        "dnas.loss",
        "dnas.draw",
        "dnas.eval.embed",
        "dnas.eval.ranking",
        "dnas.eval.retrieval",
        "dnas.nn.reid_net",
        "dnas.task.reid",
        "dnas.task.classify",
        "dnas.task.images",
        "dnas.serve",
        "retrain",
        "search_spaces",
        "dnas.cli",
    ),
    "dnas/task": ("dnas.search", "dnas.draw", "dnas.serve", "retrain", "search_spaces", "dnas.cli"),
    "dnas/serve": ("dnas.cli", "tools"),
    "search_spaces": (
        "dnas.search",
        "dnas.loss",
        "dnas.data",
        "dnas.eval",
        "dnas.draw",
        "dnas.run",
        "dnas.serve",
        "retrain",
        "dnas.cli",
    ),
    "retrain": ("dnas.search", "dnas.serve", "dnas.cli"),
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_import_rules(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            broken = [rule for rule in FORBIDDEN[package] if name == rule or name.startswith(rule + ".")]
            assert not broken, f"{file.relative_to(ROOT)} imports {name}"


def imported(file: Path) -> Iterator[str]:
    """Every name that a file imports, for types or inside a function too: `a.b` and `a.b.c` of `from a.b import c`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def test_no_import_circles() -> None:
    """Imports for types and inside functions count too."""
    files = {}
    for package in ("dnas", "retrain", "search_spaces"):
        for file in (ROOT / package).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    arrows: nx.DiGraph[str] = nx.DiGraph()
    for name, file in files.items():
        arrows.add_edges_from((name, other) for other in imported(file) if other in files)
        # `from package import module` is an arrow to the module
        arrows.remove_edges_from([(name, other) for other in arrows.succ.get(name, {}) if name.startswith(f"{other}.")])
    assert arrows.number_of_edges() > 300
    circles = [sorted(circle) for circle in nx.strongly_connected_components(arrows) if len(circle) > 1]
    assert not circles
