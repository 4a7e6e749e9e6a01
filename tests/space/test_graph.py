"""The graph of a description: nodes, edges, and drawing with and without Graphviz."""

from pathlib import Path

import networkx as nx
import pytest

from dnas.draw.graph import draw_graph
from dnas.errors import UserError
from dnas.space.graph import graph, part
from dnas.space.spec import decisions, fill
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


def test_cells_are_drawn_as_graphs() -> None:
    space = SPACES["cells_reid_tiny"]
    known = decisions(space.spec)
    choices = {key: decision.options[-1] for key, decision in known.items()}  # the last pair; channel attention
    choices |= {"normal.node2.from0": "zero", "normal.node3.from2": "skip"}
    spec = fill(space.spec, choices)
    found = graph(spec, space.input)
    assert nx.is_directed_acyclic_graph(found)
    assert sum(node.get("macs", 0) for _, node in found.nodes(data=True)) == spec.cost(space.input).macs.value
    cell = part(found, "normal cell 2")
    titles = [node["title"] for _, node in cell.nodes(data=True)]
    assert titles.count("channel self-attention") == 6  # 8 edges: one is zero, one a skip
    name = {node["title"]: number for number, node in cell.nodes(data=True)}
    assert set(cell.predecessors(name["side by side"])) == {name[f"node {k}"] for k in (2, 3, 4, 5)}
    assert cell.in_degree(name["node 2"]) == 1
    assert set(cell.predecessors(name["node 3"])) & {name["node 2"]}  # through the skip
    assert [node["kind"] for _, node in cell.nodes(data=True)].count("input") == 2
    with pytest.raises(UserError, match="part: found 'cell 9', allowed: reduction cell 1, normal cell 2, "):
        part(found, "cell 9")


def test_open_cells_have_every_edge() -> None:
    space = SPACES["cells_reid_tiny"]
    cell = part(graph(space.spec, space.input), "reduction cell 1")
    keys = [node["key"] for _, node in cell.nodes(data=True) if node["key"]]
    assert sorted(keys) == sorted(
        key for key in decisions(space.spec) if key.startswith("reduction.") and "from" in key
    )
    assert len(keys) == 2 + 3 + 4 + 5


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
