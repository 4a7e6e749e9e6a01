"""The graph of a description: nodes, edges, and drawing with and without Graphviz."""

import json
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import pytest
from torch import nn

from dnas.cli import main
from dnas.draw.graph import draw_graph
from dnas.errors import UserError
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.inverted_residual import InvertedResidual
from dnas.space.cost import Cost, norm
from dnas.space.genotype import Genotype
from dnas.space.graph import View, beside, differences, graph, part
from dnas.space.holes import Shape, Width
from dnas.space.spec import Builder, Spec, decisions, fill, image
from search_spaces import SPACES

SPACE = SPACES["tiny_reid"]
CHOICES = {
    **{f"stage{s}.block{b}": "k3e2" for s in (1, 2, 3) for b in (1, 2)},
    **{f"stage{s}.width": w for s, w in ((1, 16), (2, 32), (3, 64))},
    "stage1.attention": "none",
    "stage2.attention": "dcs",
    "stage3.attention": "se",
}


@dataclass(frozen=True)
class Scale(Spec):
    """An operation of parameters alone."""

    label = "scale"

    def cost(self, x: Shape) -> Cost:
        return norm(x.channels)

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return builder.norm(x.channels)


def test_an_operation_whose_parameters_alone_depend_on_a_width_is_drawn() -> None:
    found = graph(Chain((ConvNormAct(Width("width", (8, 16)), 3), Scale())), SPACE.input)
    (scale,) = [node for _, node in found.nodes(data=True) if node["title"] == "scale"]
    assert "params" not in scale
    found = graph(Chain((ConvNormAct(8, 3), Scale())), SPACE.input)
    (scale,) = [node for _, node in found.nodes(data=True) if node["title"] == "scale"]
    assert (scale["macs"], scale["params"]) == (0, 16)


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
    assert [node["kind"] for _, node in cell.nodes(data=True)].count("input") == 1  # the other is dead
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


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf", ".dot"])
@pytest.mark.parametrize("dot", [True, False])
def test_drawing(ending: str, dot: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dot:
        monkeypatch.setattr("dnas.draw.graph.shutil.which", lambda name: None)
    file = tmp_path / f"net{ending}"
    draw_graph(graph(fill(SPACE.spec, CHOICES), SPACE.input), "a <b> & \\N title", file)
    start = file.read_bytes()[:1000]
    assert {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF", ".dot": b"digraph"}[ending] in start
    assert file.stat().st_size > 1000


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot draw '\.jpg', allowed: \.svg, \.png, \.pdf, \.dot"):
        draw_graph(graph(fill(SPACE.spec, CHOICES), SPACE.input), "x", tmp_path / "net.jpg")


def test_equal_blocks_are_folded_with_their_count() -> None:
    """The paper's backbone has 48 blocks in four stages: two nodes a stage are enough, and nothing is lost."""
    space = SPACES["fbnetv2_reid_dcs"]
    spec = fill(space.spec, {key: decision.options[0] for key, decision in decisions(space.spec).items()})
    whole, folded = graph(spec, space.input, View(fold=False)), graph(spec, space.input)
    assert (len(whole), len(folded)) == (57, 17)
    counts = [node["count"] for _, node in folded.nodes(data=True) if node["count"] > 1]
    assert counts == [2, 11, 20, 11]
    for found in (whole, folded):
        spent = sum(node.get("macs", 0) * node["count"] for _, node in found.nodes(data=True))
        assert spent == spec.cost(space.input).macs.value
    looks = [(node["title"], node["shape"]) for _, node in folded.nodes(data=True)]
    assert len(set(looks)) == len(looks)  # neighbours that look alike are one


def test_probabilities_are_on_the_options_and_their_edges() -> None:
    known = decisions(SPACE.spec)
    weights = {key: [0.7, *[0.3 / (len(d.options) - 1)] * (len(d.options) - 1)] for key, d in known.items()}
    found = graph(SPACE.spec, SPACE.input, View(weights=weights))
    options = [node for _, node in found.nodes(data=True) if node["key"] == "stage1.attention"]
    assert [node["weight"] for node in options] == pytest.approx([0.7, 0.15, 0.15])
    assert options[0]["shape"] == "16 (70% of 16-32) x 32 x 16"
    for tail, head, data in found.edges(data=True):
        ends = [w for w in (found.nodes[tail].get("weight"), found.nodes[head].get("weight")) if w is not None]
        assert data.get("weight") == (min(ends) if ends else None)
    # blocks of one look but other probabilities are not folded into one
    weights["stage1.block2"] = [0.1, 0.1, 0.1, 0.7]
    assert len(graph(SPACE.spec, SPACE.input, View(weights=weights))) == len(found)


def test_two_networks_side_by_side() -> None:
    """Another operation is marked on both sides, one that is missing on the side that has it, a width all along."""
    one = fill(SPACE.spec, CHOICES)
    assert differences(one, one, SPACE.input) == frozenset()
    changed = {"stage1.block1": "k5e4", "stage2.attention": "none", "stage3.width": 96}
    other = fill(SPACE.spec, {**CHOICES, **changed})
    marked = differences(one, other, SPACE.input)
    graphs = {name: graph(spec, SPACE.input, View(marked=marked)) for name, spec in (("a", one), ("b", other))}
    titles = {
        name: [node["title"] for _, node in found.nodes(data=True) if node["differs"]] for name, found in graphs.items()
    }
    assert titles["a"] == ["IR k3 e2 s2", "DCS", "IR k3 e2", "IR k3 e2 + residual", "SE"]
    assert titles["b"] == ["IR k5 e4 s2", "IR k3 e2", "IR k3 e2 + residual", "SE"]
    both = beside(graphs)
    assert len(both) == sum(len(found) for found in graphs.values())
    assert nx.number_weakly_connected_components(both) == 2
    assert {node["side"] for _, node in both.nodes(data=True)} == {0, 1}
    assert "a: stage1" in {node["group"] for _, node in both.nodes(data=True)}


def test_a_difference_keeps_a_block_out_of_the_fold() -> None:
    block = InvertedResidual(16, 3, 2, 1, True)
    chain = Chain((ConvNormAct(16, 3), *[block] * 5))
    other = Chain((*chain.parts[:3], InvertedResidual(16, 5, 2, 1, True), *chain.parts[4:]))
    marked = differences(chain, other, image(32, 16))
    counts = [node["count"] for _, node in graph(chain, image(32, 16), View(marked=marked)).nodes(data=True)]
    assert counts == [1, 1, 2, 1, 2, 1]
    assert differences(chain, other, image(32, 16)) == marked


HOSTILE = 'a"]; x -> y; <script>\n\\N $\\frac{1}$ \x1b[31m'


@pytest.mark.parametrize("dot", [True, False])
def test_names_are_only_shown(dot: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dot:
        monkeypatch.setattr("dnas.draw.graph.shutil.which", lambda name: None)
    found = graph(Chain((ConvNormAct(4, 3),), name=HOSTILE), SPACE.input)
    for ending in (".dot", ".svg", ".png", ".graphml", ".json"):
        draw_graph(found, HOSTILE, tmp_path / f"net{ending}")
    source = (tmp_path / "net.dot").read_text()
    assert "\x1b" not in source
    assert source.count(" -> ") == 2 + 2  # two edges, and the name in the title and in the group
    assert "<script" not in (tmp_path / "net.svg").read_text()


def test_graphs_as_data(tmp_path: Path) -> None:
    found = graph(fill(SPACE.spec, CHOICES), SPACE.input)
    for ending in (".graphml", ".json"):
        draw_graph(found, "x", tmp_path / f"net{ending}")
    read = nx.read_graphml(tmp_path / "net.graphml", node_type=int)
    again = json.loads((tmp_path / "net.json").read_text())
    assert set(read.edges) == set(found.edges)
    assert {(edge["source"], edge["target"]) for edge in again["edges"]} == set(found.edges)
    for node, data in found.nodes(data=True):
        assert read.nodes[node] == data
    assert [entry["title"] for entry in again["nodes"]] == [data["title"] for _, data in found.nodes(data=True)]


def test_show_two_and_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command: two genotypes, an open space with probabilities, and what it refuses."""
    known = decisions(SPACE.spec)
    logits = {key: [float(k) for k in range(len(decision.options))] for key, decision in known.items()}
    files = [str(tmp_path / f"{name}.json") for name in ("one", "two", "without")]
    for file, change, search in zip(files, ({}, {"stage2.attention": "none"}, {}), (logits, logits, None), strict=True):
        Genotype.of(SPACE, {**CHOICES, **change}, {"logits": search} if search else {}).save(Path(file))
    assert main(["show", *files[:2], "-o", str(tmp_path / "two.dot")]) == 0
    assert "1 places differ" in (tmp_path / "two.dot").read_text()
    assert main(["show", files[0], "--open", "-o", str(tmp_path / "open.json")]) == 0
    opened = json.loads((tmp_path / "open.json").read_text())["nodes"]
    shares = [node["weight"] for node in opened if node["key"] == "stage1.attention"]
    assert shares == pytest.approx([0.0900, 0.2447, 0.6652], abs=1e-4)
    assert main(["show", "tiny_reid", "--open", "--part", "stage1", "-o", str(tmp_path / "part.svg")]) == 0
    capsys.readouterr()
    for words, message in (
        ([*files[:2], "--open"], "show: --open is for one search"),
        ([files[2], "--open"], "without.json: search: logits: found none for the decisions"),
        ([files[0], "-o", "net.jpg"], "cannot draw '.jpg', allowed: .svg, .png, .pdf, .dot, .graphml, .json"),
    ):
        assert main(["show", *words]) == 2
        assert message in capsys.readouterr().err
