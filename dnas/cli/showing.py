"""`dnas show`: networks as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, add_space
from dnas.errors import UserError
from dnas.run.progress import console

if TYPE_CHECKING:
    from dnas.space.graph import Graph
    from retrain.models import Model

SHOW = "Draw a network as a graph, a space with all that is open, or two networks with what differs."


def parser() -> Parser:
    found = Parser(prog="dnas show", description=SHOW)
    found.add_argument("what", type=str, help="genotype file, run folder, or name of a search space")
    found.add_argument("other", type=str, nargs="?", help="a second one, drawn beside it with the differences marked")
    found.add_argument(
        "-o",
        "--output",
        type=str,
        default="network.svg",
        help="file to write: .svg, .png, .pdf, .dot, .graphml or .json",
    )
    found.add_argument("--open", action="store_true", help="of a search: the whole space, with probabilities")
    found.add_argument("--unfold", action="store_true", help="draw every block; else equal neighbours are one")
    found.add_argument("--part", type=str, default=None, help="one stage or cell, such as 'stage1' or 'normal cell 2'")
    add_space(found)
    return found


def run(config: Namespace, words: Sequence[str]) -> None:
    from dnas.draw.graph import draw_graph

    if config.other is not None and config.open:
        raise UserError("show: --open is for one search, not for two networks")
    network, title = _open(config) if config.open else _closed(config)
    draw_graph(network, title, Path(config.output))
    console.print(f"wrote {config.output}", markup=False)


def _open(config: Namespace) -> tuple[Graph[int], str]:
    from dnas.space.graph import View, graph
    from retrain.models import open_space

    found = open_space(config.what, config.space)
    network = graph(found.space.spec, found.space.input, View(not config.unfold, found.probabilities))
    title = f"space {found.space.name}" + (", probabilities at the end of the search" if found.probabilities else "")
    return _part(network, title, config.part)


def _closed(config: Namespace) -> tuple[Graph[int], str]:
    from dnas.space.graph import View, beside, differences, graph
    from retrain.models import network_of

    models = [network_of(what, config.space) for what in (config.what, config.other) if what is not None]
    first, last = models[0], models[-1]
    marked = differences(first.spec, last.spec, first.input) if first.name == last.name else frozenset[str]()
    view = View(not config.unfold, marked=marked if len(models) > 1 else frozenset())
    graphs = [_part(graph(model.spec, model.input, view), _size(model), config.part) for model in models]
    if len(models) == 1:
        return graphs[0]
    said = f"{len(marked)} places differ" if first.name == last.name else "two spaces: no differences are marked"
    names = [Path(what).name for what in (config.what, config.other)]
    names = names if names[0] != names[1] else [config.what, config.other]
    network = beside({name: found for name, (found, _) in zip(names, graphs, strict=True)})
    return network, "\n".join([*(f"{n}: {t}" for n, (_, t) in zip(names, graphs, strict=True)), said])


def _size(model: Model) -> str:
    """What a network is called and what it costs."""
    from dnas.draw.graph import count
    from dnas.space.spec import decisions

    spec, x = model.spec, model.input
    cost, still_open = spec.cost(x), len(decisions(spec))
    closed = "" if still_open else f"{count(cost.macs.value)} MACs, {count(cost.params.value)} parameters"
    return f"{model.name}: {closed or f'{still_open} open decisions'}, input {x.height} x {x.width}"


def _part(network: Graph[int], title: str, name: str | None) -> tuple[Graph[int], str]:
    from dnas.space.graph import part

    return (network, title) if name is None else (part(network, name), f"{title}, {name}")


VERBS = {"show": Verb(SHOW, parser, run)}
