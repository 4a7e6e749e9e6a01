"""A description as a directed graph: one node per operation, edges follow the data.

Node attributes: title, kind (input, operation, attention, sum, embedding), group (a stage, a cell), shape, macs,
params, key (of the choice that it is an option of, if it is still open). Nodes of kind sum add or join what enters.
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

from dnas.errors import UserError
from dnas.nn.cell import CellStack, Step
from dnas.nn.cell_operations import Zero
from dnas.nn.chain import Chain, Skip
from dnas.space.holes import Shape
from dnas.space.spec import OneOf, Spec


class _Tracer:
    def __init__(self) -> None:
        self.graph: nx.DiGraph[int] = nx.DiGraph()

    def node(self, sources: list[int], **attributes: object) -> int:
        number = len(self.graph)
        self.graph.add_node(number, **attributes)
        self.graph.add_edges_from((source, number) for source in sources)
        return number

    def trace(self, spec: Spec, x: Shape, sources: list[int], group: str, key: str = "") -> list[int]:
        """Add `spec` after `sources`; returns the nodes whose output is its output."""
        if isinstance(spec, Chain):
            for part, entering in spec.steps(x):
                sources = self.trace(part, entering, sources, spec.name or group, key)
            return sources
        if isinstance(spec, CellStack):
            return self.cells(spec, x, sources)
        if isinstance(spec, OneOf):
            return [end for option in spec.options.values() for end in self.trace(option, x, sources, group, spec.key)]
        if isinstance(spec, Skip) and not key:
            return sources
        return [self.operation(spec, x, sources, group, key)]

    def operation(self, spec: Spec, x: Shape, sources: list[int], group: str, key: str) -> int:
        y, cost = spec.out(x), spec.cost(x)
        counts = {"macs": cost.macs.value, "params": cost.params.value} if _closed(cost.macs.tables) else {}
        kind = "attention" if spec.attention else "operation"
        return self.node(
            sources, title=spec.label, kind=kind, group=group, shape=str(y), width=str(y.channels), key=key, **counts
        )

    def sum(self, title: str, x: Shape, sources: list[int], group: str) -> int:
        return self.node(sources, title=title, kind="sum", group=group, shape=str(x), width=str(x.channels), key="")

    def cells(self, spec: CellStack, x: Shape, sources: list[int]) -> list[int]:
        """Every cell as a group: its two inputs, an operation for every edge, its nodes as sums."""
        before = last = sources
        for number, step in enumerate(spec.steps(x), start=1):
            group = f"{'reduction' if step.letter == 'R' else 'normal'} cell {number}"
            states = [
                [self.operation(fit, shape, ends, group, "")]
                for (fit, shape), ends in zip(step.fits, (before, last), strict=True)
            ]
            for node in step.cell.nodes:
                ends = [end for s, _ in node.sources() for end in self.edge(node.edges[s], step, s, states[s], group)]
                states.append([self.sum(f"node {len(states)}", step.state_shape(2), ends, group)])
            joined = self.sum("side by side", step.out, [end for state in states[2:] for end in state], group)
            before, last = last, [joined]
        return last

    def edge(self, spec: Spec, step: Step, state: int, sources: list[int], group: str) -> list[int]:
        """The operation of an edge; an open one is a single node, zero is no edge."""
        x = step.state_shape(state)
        if isinstance(spec, OneOf):
            title, y = f"one of {len(spec.options)}", spec.out(x)
            return [
                self.node(
                    sources,
                    title=title,
                    kind="operation",
                    group=group,
                    shape=str(y),
                    width=str(y.channels),
                    key=spec.key,
                )
            ]
        return [] if isinstance(spec, Zero) else self.trace(spec, x, sources, group)


def _closed(tables: Mapping[tuple[str, ...], object]) -> bool:
    return all(not keys for keys in tables)


def graph(spec: Spec, x: Shape) -> nx.DiGraph[int]:
    """The graph of a description, open or closed, for input shape `x`."""
    tracer = _Tracer()
    start = tracer.node([], title="image", kind="input", group="", shape=str(x), width=str(x.channels), key="")
    ends = tracer.trace(spec, x, [start], "")
    y = spec.out(x)
    tracer.node(
        ends, title="mean, BNNeck", kind="embedding", group="", shape=str(y.channels), width=str(y.channels), key=""
    )
    return tracer.graph


def part(whole: nx.DiGraph[int], group: str) -> nx.DiGraph[int]:
    """One stage or cell of a graph, with the nodes that feed it.

    Raises:
        UserError: no such group.
    """
    groups = list(dict.fromkeys(whole.nodes[node]["group"] for node in whole if whole.nodes[node]["group"]))
    if group not in groups:
        raise UserError(f"part: found '{group}', allowed: {', '.join(groups)}")
    members = {node for node in whole if whole.nodes[node]["group"] == group}
    feeding = {source for node in members for source in whole.predecessors(node)}
    found: nx.DiGraph[int] = whole.subgraph(members | feeding).copy()
    found.remove_edges_from([(a, b) for a, b in found.edges if b not in members])
    for node in feeding - members:
        found.nodes[node].update(kind="input", group="")
    return found
