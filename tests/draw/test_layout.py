"""Drawing without Graphviz: no two boxes touch, arrows end at boxes, long chains fold."""

import itertools

import networkx as nx
import pytest

from dnas.draw.layout import CORNER, LABEL, Layout, lay_out, layers
from dnas.space.graph import graph
from search_spaces import SPACES

BOX = (1.1, 0.4)


def chain(count: int, across: int = 0) -> "nx.DiGraph[int]":
    found: nx.DiGraph[int] = nx.DiGraph()
    for node in range(count):
        found.add_node(node, group=f"stage {node // 6}", title=str(node))
        if node:
            found.add_edge(node - 1, node)
        if across and node >= across:
            found.add_edge(node - across, node)
    return found


def boxes(layout: Layout) -> dict[int, tuple[float, float, float, float]]:
    return {
        node: (x - BOX[0] / 2, y - BOX[1] / 2, x + BOX[0] / 2, y + BOX[1] / 2)
        for node, (x, y) in layout.centres.items()
    }


@pytest.mark.parametrize("name", ["tiny_reid", "cells_reid_tiny", "fbnetv2_reid", "cells_reid"])
def test_boxes_are_apart_and_arrows_end_at_them(name: str) -> None:
    network = graph(SPACES[name].spec, SPACES[name].input)
    layout = lay_out(network, dict.fromkeys(network, BOX))
    placed = boxes(layout)
    for one, other in itertools.combinations(placed.values(), 2):
        apart = one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
        assert apart
    for left, top, right, bottom in placed.values():
        assert left >= -1e-9
        assert top >= -1e-9
        assert right <= layout.size[0] + 1e-9
        assert bottom <= layout.size[1] + 1e-9
    assert {*layout.routes, *layout.folded} == set(network.edges)
    for (tail, head), route in layout.routes.items():
        assert route[0] == pytest.approx((layout.centres[tail][0], placed[tail][3]))
        assert route[-1] == pytest.approx((layout.centres[head][0], placed[head][1]))


def test_data_flow_downwards() -> None:
    network = graph(SPACES["cells_reid_tiny"].spec, SPACES["cells_reid_tiny"].input)
    at = {node: k for k, row in enumerate(layers(network)) for node in row}
    assert all(at[tail] < at[head] for tail, head in network.edges)


def test_a_long_chain_folds_where_groups_end() -> None:
    network = chain(36)
    layout = lay_out(network, dict.fromkeys(network, BOX))
    columns = sorted({round(x, 3) for x, _ in layout.centres.values()})
    assert len(columns) > 2
    assert layout.size[1] < 2 * layout.size[0]
    starts = [node for node, (_, y) in layout.centres.items() if y == min(y for _, y in layout.centres.values())]
    assert all(node % 6 == 0 for node in starts)
    for (tail, head), route in layout.routes.items():
        if head in starts:  # around the columns: never through a box
            gutter = route[2][0]
            assert all(not left < gutter < right for left, _, right, _ in boxes(layout).values())
            assert route[1][1] - route[0][1] == pytest.approx(CORNER), (tail, head)
            assert route[3][1] == route[4][1] < boxes(layout)[head][1] - LABEL  # over the name of the frame
    assert not layout.folded


def test_what_jumps_a_column_is_written() -> None:
    network = chain(36, across=2)
    layout = lay_out(network, dict.fromkeys(network, BOX))
    assert layout.folded
    assert all(head - tail == 2 for tail, head in layout.folded)


def test_wide_layers_that_nothing_passes_fold() -> None:
    """All options of a choice stand side by side, and all of them feed the next ones."""
    network: nx.DiGraph[int] = nx.DiGraph()
    for node in range(60):
        network.add_node(node, group=f"stage {node // 12}", title=str(node))
        if node >= 3:
            network.add_edges_from((before, node) for before in range(3 * (node // 3) - 3, 3 * (node // 3)))
    layout = lay_out(network, dict.fromkeys(network, BOX))
    assert layout.size[1] < 2 * layout.size[0]
    assert {*layout.routes, *layout.folded} == set(network.edges)
