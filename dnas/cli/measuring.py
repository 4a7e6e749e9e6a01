"""`dnas compare`, `dnas probe`, `dnas eval` and `dnas latency`: numbers of networks and runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, add_device, add_space, first_line, typed
from dnas.errors import check_range
from dnas.run.progress import console

PROBE = "Measure the information bottleneck of a trained network, on training and on unseen identities."
LATENCY = "Measure the operations of a space on this device: the table for --budget.latency."
COMPARE = "Compare finished retrainings: a table, every difference with its interval, a picture of accuracy over cost."
FIDELITY = "Hold a search's verdict against short trainings of random networks, and of the found one, on their own."
EVAL = "Evaluate a trained network on query and gallery of a data set."


def compare_parser() -> Parser:
    found = Parser(prog="dnas compare", description=COMPARE)
    found.add_argument("runs", type=str, nargs="+", help="run folders")
    found.add_argument("-o", "--output", type=str, default=None, help="picture to write: .svg or .png")
    found.add_argument("--table", type=str, nargs="+", default=None, help="tables to write: .md, .csv, .json or .txt")
    found.add_argument("--group", type=str, default=None, help="setting to group runs by, such as backbone or loss.eta")
    found.add_argument("--mixed", action="store_true", help="compare runs on different data or protocols all the same")
    return found


def compare(config: Namespace, words: Sequence[str]) -> None:
    from retrain.compare import compare
    from retrain.tables import tables, write_table

    comparison = compare(config.runs, config.group, config.mixed, Path(config.output) if config.output else None)
    for table in tables(comparison):
        console.print(table, markup=False)
    for file in config.table or ():
        write_table(comparison, Path(file))
    if written := [*([config.output] if config.output else []), *(config.table or ())]:
        console.print(f"wrote {', '.join(written)}", markup=False)


def probe_parser() -> Parser:
    found = Parser(prog="dnas probe", description=PROBE)
    found.add_argument("run", type=str, help="folder of a retraining")
    found.add_argument("--data", type=str, default=None, help="another data set, in any layout of docs/data.md")
    found.add_argument("--json", action="store_true", help="print the numbers as one line of JSON, last")
    add_device(found)
    add_space(found)
    return found


def probe(config: Namespace, words: Sequence[str]) -> None:
    from retrain.probe import probe_run, tables

    result = probe_run(config.run, config.data, config.device, config.space)
    for table in tables(result):
        console.print(table, markup=False)
    if config.json:
        print(json.dumps(result))


def eval_parser() -> Parser:
    from retrain.evaluate import EvalConfig

    found = Parser(prog="dnas eval", description=first_line(EvalConfig))
    found.add_argument("run", type=str, help="folder of a retraining")
    for flag, meaning in (
        ("rerank", "k-reciprocal re-ranking as well, reported apart (cosine only)"),
        ("open_set", "also what is found where the person of a query may not be in the gallery"),
        ("json", "print the numbers as one line of JSON, last"),
    ):
        found.add_argument(f"--{flag}", action="store_true", help=meaning)
    found.add_class_arguments(EvalConfig, skip={"run", "rerank", "open_set", "json"})
    return found


def evaluate(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.run.files import write_json
    from retrain.evaluate import EvalConfig, evaluate_run, tables

    config = typed(EvalConfig, namespace)
    result = evaluate_run(config)
    for table in tables(result):
        console.print(table, markup=False)
    if config.output:
        write_json(Path(config.output), result)
        console.print(f"wrote {config.output}", markup=False)
    if config.json:
        print(json.dumps(result))


def latency_parser() -> Parser:
    found = Parser(prog="dnas latency", description=LATENCY)
    found.add_argument("--space", type=str, required=True, help="name of a search space, or a Python file")
    add_device(found, "auto, cpu, cuda, cuda:N or mps: the one to serve on")
    found.add_argument("--height", type=int, default=0, help="of the images, in pixels (0: the space's)")
    found.add_argument("--width", type=int, default=0, help="of the images, in pixels (0: the space's)")
    found.add_argument("--batch", type=int, default=1, help="images at a time")
    found.add_argument("--rounds", type=int, default=20, help="measurements of every operation")
    found.add_argument("-o", "--output", type=str, default="latency.json", help="table to write")
    return found


def latency(config: Namespace, words: Sequence[str]) -> None:
    from dnas.eval.latency import measure_space
    from dnas.run.device import pick_device
    from search_spaces import load_space

    space = load_space(config.space)
    check_range(config, "", 0, 4096, "height", "width")
    space = space.resized(config.height or space.height, config.width or space.width)
    for row in measure_space(space, pick_device(config.device), config.batch, config.rounds, Path(config.output)):
        console.print(row)
    console.print(f"wrote {config.output}", markup=False)


def fidelity_parser() -> Parser:
    from dnas.search.fidelity import FidelityConfig

    found = Parser(prog="dnas fidelity", description=FIDELITY)
    found.add_argument("run", type=str, help="folder of a search")
    found.add_argument("--json", action="store_true", help="print the verdict as one line of JSON, last")
    found.add_class_arguments(FidelityConfig)
    add_device(found)
    add_space(found)
    return found


def fidelity(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.search.fidelity import FidelityConfig
    from dnas.search.search import opened, report_fidelity
    from search_spaces import load_space, named_space

    asked = typed(FidelityConfig, namespace)
    state, folder = opened(
        Path(namespace.run),
        lambda name: load_space(namespace.space) if namespace.space else named_space(name),
        namespace.device,
    )
    with folder.locked():
        found = state.fidelity(asked, folder)
        report_fidelity(folder, found)
    if namespace.json:
        print(json.dumps(found.verdict()))


VERBS = {
    "fidelity": Verb(FIDELITY, fidelity_parser, fidelity),
    "compare": Verb(COMPARE, compare_parser, compare),
    "eval": Verb(EVAL, eval_parser, evaluate),
    "probe": Verb(PROBE, probe_parser, probe),
    "latency": Verb(LATENCY, latency_parser, latency),
}
