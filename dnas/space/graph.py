"""A description as a directed graph: one node per operation, edges follow the data.

Node attributes: title, kind (input, operation, attention, sum, embedding), group (a stage, a cell), place (in the
description), shape, width, macs, params, count (blocks folded into this one), key (of the choice that it is an option
of, if it is still open), weight (the probability of that option, where one is known), differs (from another network).
Nodes of kind sum add or join what enters. Edges carry the weight of the option that they lead to or from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from dnas.errors import UserError
from dnas.nn.cell import CellStack
from dnas.nn.cell_operations import Zero
from dnas.nn.chain import Chain, Skip
from dnas.nn.dense_cell import DenseCell
from dnas.space.canonical import plain
from dnas.space.holes import Channels, Shape
from dnas.space.spec import OneOf, Spec

Graph = nx.DiGraph


@dataclass(frozen=True)
class View:
    """What a graph is to show.

    Args:
        fold: draw equal blocks that follow one another once, with their count.
        weights: probabilities of the options of a choice, by its key.
        marked: places that differ from another network.
    """

    fold: bool = True
    weights: Mapping[str, Sequence[float]] = field(default_factory=dict)
    marked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _At:
    """Where the tracer is: group, place, the open choice that it is an option of, and how many blocks are one."""

    group: str = ""
    place: str = ""
    key: str = ""
    weight: float | None = None
    count: int = 1

    def into(self, part: object, **changes: Any) -> _At:
        return _At(**{**vars(self), "place": f"{self.place}/{part}", **changes})


class _Tracer:
    def __init__(self, view: View) -> None:
        self.graph: Graph[int] = nx.DiGraph()
        self.view = view

    def node(self, sources: list[int], at: _At, **attributes: object) -> int:
        number = len(self.graph)
        weight = {} if at.weight is None else {"weight": at.weight}
        differs = at.place in self.view.marked
        own = {"group": at.group, "key": at.key, "place": at.place, "count": at.count, "differs": differs, **weight}
        self.graph.add_node(number, **own, **attributes)
        for source in sources:
            thin = [w for w in (at.weight, self.graph.nodes[source].get("weight")) if w is not None]
            self.graph.add_edge(source, number, **({"weight": min(thin)} if thin else {}))
        return number

    def trace(self, spec: Spec, x: Shape, sources: list[int], at: _At) -> list[int]:
        """Add `spec` after `sources`; returns the nodes whose output is its output."""
        if isinstance(spec, Chain):
            for number, part, entering, count in self.runs(spec, x, at):
                inside = at.into(number, group=spec.name or at.group, count=at.count * count)
                sources = self.trace(part, entering, sources, inside)
            return sources
        if isinstance(spec, CellStack):
            return self.cells(spec, x, sources, at)
        if isinstance(spec, DenseCell):
            return self.dense_cell(spec, x, sources, at)
        if isinstance(spec, OneOf):
            ends = []
            for k, option in enumerate(spec.options.values()):
                weights = self.view.weights.get(spec.key)
                weight = None if weights is None else weights[k] * (1.0 if at.weight is None else at.weight)
                inside = _At(**{**vars(at), "key": spec.key, "weight": weight})
                ends += self.trace(option, x, sources, inside)
            return ends
        if isinstance(spec, Skip) and not at.key:
            return sources
        return [self.operation(spec, x, sources, at)]

    def runs(self, chain: Chain, x: Shape, at: _At) -> Iterator[tuple[int, Spec, Shape, int]]:
        """The parts of a chain with what enters them; equal ones that follow one another once, with their count."""
        steps = chain.steps(x)
        looks = [self.look(part, entering, f"{at.place}/{n}") for n, (part, entering) in enumerate(steps)]
        number = 0
        while number < len(steps):
            last = number + 1
            while self.view.fold and last < len(steps) and looks[last] == looks[number]:
                last += 1
            yield number, *steps[number], last - number
            number = last

    def look(self, part: Spec, x: Shape, place: str) -> tuple[object, ...]:
        """Equal for two parts that would be drawn alike."""
        marks = sorted(mark[len(place) :] for mark in self.view.marked if mark == place or mark.startswith(f"{place}/"))
        return str(self.without_keys(plain(part))), x, tuple(marks)

    def without_keys(self, content: Any) -> Any:
        """A plain description in which a choice has its probabilities in place of its name."""
        if isinstance(content, list):
            return [self.without_keys(part) for part in content]
        if not isinstance(content, dict):
            return content
        found = {key: self.without_keys(part) for key, part in content.items()}
        if content.get("is") == "OneOf":
            weights = self.view.weights.get(content["key"])
            found["key"] = "" if weights is None else [round(weight, 2) for weight in weights]
        return found

    def operation(self, spec: Spec, x: Shape, sources: list[int], at: _At) -> int:
        y, cost = spec.out(x), spec.cost(x)
        known = _closed(cost.macs.tables) and _closed(cost.params.tables)
        counts = {"macs": cost.macs.value, "params": cost.params.value} if known else {}
        kind = "attention" if spec.attention else "operation"
        return self.node(sources, at, title=spec.label, kind=kind, shape=self.shape(y), width=str(y.channels), **counts)

    def shape(self, x: Shape) -> str:
        """The shape, with the likeliest width where it is open and there are weights."""
        return f"{self.width(x.channels)} x {x.height} x {x.width}"

    def width(self, c: Channels) -> str:
        weights = self.view.weights.get(c.key or "")
        if weights is None:
            return str(c)
        k = max(range(len(weights)), key=weights.__getitem__)
        return f"{c.values[k]} ({weights[k]:.0%} of {c})"

    def sum(self, title: str, x: Shape, sources: list[int], at: _At) -> int:
        return self.node(sources, at, title=title, kind="sum", shape=str(x), width=str(x.channels))

    def cells(self, spec: CellStack, x: Shape, sources: list[int], at: _At) -> list[int]:
        """Every live cell as a group: its inputs that are taken, an operation for every edge, its nodes as sums."""
        before = last = sources
        for number, (step, (present, inputs)) in enumerate(zip(spec.steps(x), spec.presences(), strict=True), start=1):
            if present.known == 0:
                before, last = last, []
                continue
            group = f"{'reduction' if step.letter == 'R' else 'normal'} cell {number}"
            cell = at.into(group, group=group)
            states = [
                [] if there.known == 0 else [self.operation(fit, shape, ends, cell.into(f"fit {n}"))]
                for n, ((fit, shape), there, ends) in enumerate(zip(step.fits, inputs, (before, last), strict=True))
            ]
            for node in step.cell.nodes:
                name = f"node {len(states)}"
                ends = [
                    end
                    for s, _ in node.sources()
                    for end in self.edge(node.edges[s], step.state_shape(s), states[s], cell.into(f"{name} from {s}"))
                ]
                states.append([self.sum(name, step.state_shape(2), ends, cell.into(name))])
            joined = [end for state in states[2:] for end in state]
            before, last = last, [self.sum("side by side", step.out, joined, cell.into("out"))]
        return last

    def dense_cell(self, spec: DenseCell, x: Shape, sources: list[int], at: _At) -> list[int]:
        """The cell as a group: an operation for every edge that is there, its nodes as sums."""
        cell = at.into("cell", group=f"{at.group} cell".strip())
        states = [sources]
        for node, edges in enumerate(spec.nodes, start=1):
            name, live = f"node {node}", spec.live(node)
            ends = [
                end
                for s, edge in enumerate(edges if live else ())
                for end in self.edge(edge, x, states[s], cell.into(f"{name} from {s}"))
            ]
            states.append([self.sum(name, x, ends, cell.into(name))] if live else [])
        return states[-1]

    def edge(self, spec: Spec, x: Shape, sources: list[int], at: _At) -> list[int]:
        """The operation of an edge; an open one is a single node, zero is no edge."""
        if isinstance(spec, OneOf):
            y, weights = spec.out(x), self.view.weights.get(spec.key)
            title, weight = f"one of {len(spec.options)}", None
            if weights is not None:
                k = max(range(len(weights)), key=weights.__getitem__)
                title, weight = f"{tuple(spec.options)[k]} of {len(spec.options)}", weights[k]
            inside = _At(**{**vars(at), "key": spec.key, "weight": weight})
            return [self.node(sources, inside, title=title, kind="operation", shape=str(y), width=str(y.channels))]
        return [] if isinstance(spec, Zero) else self.trace(spec, x, sources, at)


def _closed(tables: Mapping[tuple[str, ...], object]) -> bool:
    return all(not keys for keys in tables)


def graph(spec: Spec, x: Shape, view: View | None = None) -> Graph[int]:
    """The graph of a description, open or closed, for input shape `x`."""
    tracer = _Tracer(view or View())
    start = tracer.node([], _At(place="image"), title="image", kind="input", shape=str(x), width=str(x.channels))
    ends = tracer.trace(spec, x, [start], _At())
    y = spec.out(x)
    width = tracer.width(y.channels)
    tracer.node(ends, _At(place="embedding"), title="mean, BNNeck", kind="embedding", shape=width, width=width)
    return tracer.graph


def part(whole: Graph[int], group: str) -> Graph[int]:
    """One stage or cell of a graph, with the nodes that feed it.

    Raises:
        UserError: no such group.
    """
    groups = list(dict.fromkeys(whole.nodes[node]["group"] for node in whole if whole.nodes[node]["group"]))
    if group not in groups:
        raise UserError(f"part: found '{group}', allowed: {', '.join(groups)}")
    members = {node for node in whole if whole.nodes[node]["group"] == group}
    feeding = {source for node in members for source in whole.predecessors(node)}
    found: Graph[int] = whole.subgraph(members | feeding).copy()
    found.remove_edges_from([(a, b) for a, b in found.edges if b not in members])
    for node in feeding - members:
        found.nodes[node].update(kind="input", group="")
    return found


def differences(one: Spec, other: Spec, x: Shape) -> frozenset[str]:
    """Places at which two networks of one space have another operation or width, or one of them has none."""
    looks: list[dict[str, tuple[str, str]]] = []
    for spec in (one, other):
        nodes = graph(spec, x, View(fold=False)).nodes(data=True)
        looks.append({node["place"]: (node["title"], node["width"]) for _, node in nodes})
    return frozenset(place for place in {*looks[0], *looks[1]} if looks[0].get(place) != looks[1].get(place))


def beside(graphs: Mapping[str, Graph[int]]) -> Graph[int]:
    """Several graphs as one, `side` (0, 1, ...) telling them apart; groups carry the name of their graph."""
    found: Graph[int] = nx.DiGraph()
    for side, (name, one) in enumerate(graphs.items()):
        start = len(found)
        for node, data in one.nodes(data=True):
            group = f"{name}: {data['group']}" if data["group"] else ""
            found.add_node(start + node, **{**data, "group": group, "side": side})
        found.add_edges_from((start + a, start + b, data) for a, b, data in one.edges(data=True))
    return found


def plain_graph(network: Graph[int]) -> dict[str, Any]:
    """Nodes and edges as JSON values (networkx's node-link form)."""
    nodes = [{"id": node, **data} for node, data in network.nodes(data=True)]
    edges = [{"source": a, "target": b, **data} for a, b, data in network.edges(data=True)]
    return {"directed": True, "multigraph": False, "graph": {}, "nodes": nodes, "edges": edges}
