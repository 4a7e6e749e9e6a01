"""`dnas show`: networks as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb
from dnas.run.progress import console

SHOW = "Draw a network as a graph."


def parser() -> Parser:
    found = Parser(prog="dnas show", description=SHOW)
    found.add_argument("what", type=str, help="genotype file, run folder, or name of a search space")
    found.add_argument("-o", "--output", type=str, default="network.svg", help="picture to write: .svg, .png or .dot")
    found.add_argument("--space", type=str, default=None, help="the space of the genotype, if it is a file of your own")
    found.add_argument("--part", type=str, default=None, help="one stage or cell, such as 'stage1' or 'normal cell 2'")
    return found


def run(config: Namespace, words: Sequence[str]) -> None:
    from dnas.draw.graph import count, draw_graph
    from dnas.space.graph import graph, part
    from dnas.space.spec import decisions
    from retrain.models import network_of

    model = network_of(config.what, config.space)
    spec, x = model.spec, model.input
    cost = spec.cost(x)
    still_open = len(decisions(spec))
    size = (
        f"{still_open} open decisions"
        if still_open
        else f"{count(cost.macs.value)} MACs, {count(cost.params.value)} parameters"
    )
    network = graph(spec, x)
    title = model.name
    if config.part:
        network, title = part(network, config.part), f"{model.name}, {config.part}"
    draw_graph(network, f"{title}: {size}, input {x.height} x {x.width}", Path(config.output))
    console.print(f"wrote {config.output}")


VERBS = {"show": Verb(SHOW, parser, run)}
