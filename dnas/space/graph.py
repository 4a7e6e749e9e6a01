"""A description as a directed graph: one node per operation, edges follow the data.

Node attributes: title, kind (input, operation, attention, embedding), group, shape, macs, params, key
(of the choice that it is an option of, if it is still open).
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

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
        if isinstance(spec, OneOf):
            return [end for option in spec.options.values() for end in self.trace(option, x, sources, group, spec.key)]
        if isinstance(spec, Skip) and not key:
            return sources
        y, cost = spec.out(x), spec.cost(x)
        counts = {"macs": cost.macs.value, "params": cost.params.value} if _closed(cost.macs.tables) else {}
        kind = "attention" if spec.attention else "operation"
        return [
            self.node(
                sources,
                title=spec.label,
                kind=kind,
                group=group,
                shape=str(y),
                width=str(y.channels),
                key=key,
                **counts,
            )
        ]


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
