"""The graph of a description: nodes, edges, and drawing with and without Graphviz."""

from pathlib import Path

import networkx as nx
import pytest

from dnas.draw.graph import draw_graph
from dnas.errors import UserError
from dnas.space.graph import graph
from dnas.space.spec import fill
from search_spaces import SPACES

SPACE = SPACES["tiny_reid"]
CHOICES = {
    **{f"stage{s}.block{b}": "k3e2" for s in (1, 2, 3) for b in (1, 2)},
    **{f"stage{s}.width": w for s, w in ((1, 16), (2, 32), (3, 64))},
    "stage1.attention": "none",
    "stage2.attention": "dcs",
    "stage3.attention": "se",
}


def test_closed_graph_is_the_chain_of_what_was_chosen() -> None:
    spec = fill(SPACE.spec, CHOICES)
    found = graph(spec, SPACE.input)
    nodes = [found.nodes[n] for n in nx.topological_sort(found)]
    titles = [node["title"] for node in nodes]
    assert titles == [
        "image", "conv 3x3 s2", "IR k3 e2 s2", "IR k3 e2 + residual", "IR k3 e2 s2", "IR k3 e2 + residual", "DCS",
        "IR k3 e2", "IR k3 e2 + residual", "SE", "conv 1x1", "mean, BNNeck",
    ]  # fmt: skip
    assert [node["kind"] for node in nodes].count("attention") == 2
    assert nodes[6]["shape"] == "32 x 16 x 8"
    assert sum(node.get("macs", 0) for node in nodes) == spec.cost(SPACE.input).macs.value
    assert nx.is_directed_acyclic_graph(found)
    assert found.number_of_edges() == len(titles) - 1


def test_open_graph_has_every_option() -> None:
    found = graph(SPACE.spec, SPACE.input)
    keys = [node["key"] for _, node in found.nodes(data=True) if node["key"]]
    assert len(keys) == 6 * 4 + 3 * 3
    assert all(found.in_degree(n) and found.out_degree(n) for n, node in found.nodes(data=True) if node["key"])


@pytest.mark.parametrize("ending", [".svg", ".png", ".dot"])
@pytest.mark.parametrize("dot", [True, False])
def test_drawing(ending: str, dot: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dot:
        monkeypatch.setattr("dnas.draw.graph.shutil.which", lambda name: None)
    file = tmp_path / f"net{ending}"
    draw_graph(graph(fill(SPACE.spec, CHOICES), SPACE.input), "a <b> & \\N title", file)
    start = file.read_bytes()[:1000]
    assert {".svg": b"<?xml", ".png": b"\x89PNG", ".dot": b"digraph"}[ending] in start
    assert file.stat().st_size > 1000


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot draw '\.pdf', allowed: \.svg, \.png, \.dot"):
        draw_graph(graph(fill(SPACE.spec, CHOICES), SPACE.input), "x", tmp_path / "net.pdf")
