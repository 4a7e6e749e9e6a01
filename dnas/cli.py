"""The command line: `dnas VERB --config F.yaml --data ROOT --out DIR [--key value ...]`.

Bad input ends with one line and exit code 2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace

from dnas.errors import UserError, check_range
from dnas.run.progress import console, errors

T = TypeVar("T")
SHOW = "Draw a network as a graph."
DATA = "Check and make data sets."
CHECK = "Check a data set before anything trains on it: counts, unreadable and duplicate images, the protocol."
PROBE = "Measure the information bottleneck of a trained network, on training and on unseen identities."
LATENCY = "Measure the operations of a space on this device: the table for --budget.latency."
COMPARE = "Compare finished retrainings: a table, every difference with its interval, a picture of accuracy over cost."


class Parser(ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(" ".join(message.split()))


def _search(config: Any) -> None:
    from dnas.search.loop import search
    from search_spaces import load_space

    search(config, load_space(config.space))


def _retrain(config: Any) -> None:
    from retrain.train import retrain

    retrain(config)


def _resume(verb: str, words: Sequence[str]) -> None:
    """Go on with a run. Its folder cannot name a file to run: a space of the user's own is typed again."""
    from dnas.run.config import from_plain
    from dnas.run.folder import RunFolder
    from dnas.search.config import SearchConfig
    from dnas.search.loop import resume as resume_search
    from retrain.train import resume as resume_retraining
    from search_spaces import load_space, named_space

    if len(words) not in (2, 4) or words[0] != "--resume" or words[2:3] not in ([], ["--space"]):
        raise UserError("--resume DIR: takes no other setting (but --space FILE.py, where the space is a file)")
    folder, space = RunFolder.open(words[1]), words[3] if len(words) == 4 else None
    if folder.verb() != verb:
        raise UserError(f"{folder.path}: cannot {verb} on, this is a {folder.verb()}")
    if verb == "retrain":
        resume_retraining(folder.path, space)
    else:
        config = from_plain(SearchConfig, folder.config(), str(folder.config_file))
        found = load_space(space) if space else named_space(config.space)
        resume_search(replace(config, out=str(folder.path)), found)  # the folder may have been moved since


def _check_config_file(kind: type, file: Path) -> None:
    """Check a configuration file before the parser reads it: its messages would not name the file."""
    from dnas.run.config import check
    from dnas.run.files import read_yaml

    content = read_yaml(file)
    check(kind, content, str(file))
    if str(content.get("space")).endswith(".py"):
        raise UserError(f"{file}: space: a file of your own is run, so it must be typed: --space {content['space']}")


def _synth(config: Any) -> None:
    from dnas.data.synthetic import synthesise

    counts = synthesise(config)
    console.print(
        f"wrote {sum(counts.values())} images to {config.out}: "
        + ", ".join(f"{name} {n}" for name, n in counts.items())
    )


def _check(config: Any) -> None:
    from rich.table import Table

    from dnas.data.check import PRIVACY, check, rows
    from dnas.data.layouts import load_data

    data = load_data(config.root, for_training=False, tested=False)
    summary, findings = check(data)
    beside = f"{summary['looks_like']}: images / identities" if summary["looks_like"] else "published"
    table = Table("split", "images", "identities", "cameras", beside)
    for row in rows(data, summary):
        table.add_row(*row)
    console.print(table)
    console.print(f"layout {summary['layout']}; {summary['sizes']}")
    fingerprint = summary["fingerprint"]
    console.print(f"fingerprint {fingerprint['sha256'] if fingerprint else 'none, not everything can be read'}")
    for finding in findings:
        console.print(f"{finding.kind}: {finding.text}", markup=False, soft_wrap=True)
    console.print(PRIVACY)
    if config.json:
        print(json.dumps({**summary, "findings": [vars(finding) for finding in findings]}))
    if problems := [finding for finding in findings if finding.kind == "problem"]:
        raise UserError(f"data: {config.root}: {len(problems)} problems, listed above")


def _show(config: Namespace) -> None:
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


def _compare(config: Namespace) -> None:
    from retrain.compare import compare
    from retrain.tables import tables, write_table

    comparison = compare(config.runs, config.group, config.mixed, Path(config.output) if config.output else None)
    for table in tables(comparison):
        console.print(table)
    for file in config.table or ():
        write_table(comparison, Path(file))
    if written := [*([config.output] if config.output else []), *(config.table or ())]:
        console.print(f"wrote {', '.join(written)}")


def _probe(config: Namespace) -> None:
    from retrain.probe import probe_run, tables

    result = probe_run(config.run, config.data, config.device, config.space)
    for table in tables(result):
        console.print(table)
    if config.json:
        print(json.dumps(result))


def _eval(config: Any) -> None:
    from dnas.run.files import write_json
    from retrain.evaluate import evaluate_run, tables

    result = evaluate_run(config)
    for table in tables(result):
        console.print(table)
    if config.output:
        write_json(Path(config.output), result)
        console.print(f"wrote {config.output}")
    if config.json:
        print(json.dumps(result))


def _latency(config: Namespace) -> None:
    from dnas.eval.latency import measure_space
    from dnas.run.device import pick_device
    from search_spaces import load_space

    space = load_space(config.space)
    check_range(config, "", 0, 4096, "height", "width")
    space = space.resized(config.height or space.height, config.width or space.width)
    for row in measure_space(space, pick_device(config.device), config.batch, config.rounds, Path(config.output)):
        console.print(row)
    console.print(f"wrote {config.output}")


def _parser() -> Parser:
    from dnas.data.synthetic import SynthConfig
    from dnas.run.device import Device
    from dnas.search.config import SearchConfig
    from retrain.config import RetrainConfig
    from retrain.evaluate import EvalConfig

    parser = Parser(prog="dnas", description="Search, retrain and compare networks for person re-identification.")
    verbs = parser.add_subcommands(dest="verb")
    for name, config in (("search", SearchConfig), ("retrain", RetrainConfig)):
        verb = Parser(description=_first_line(config))
        verb.add_argument("--config", action="config", help="YAML file with any of these settings")
        verb.add_argument("--resume", metavar="DIR", help="go on with the run in DIR, from its last checkpoint")
        verb.add_class_arguments(config)
        verbs.add_subcommand(name, verb, help=_first_line(config))
    show = Parser(description=SHOW)
    show.add_argument("what", type=str, help="genotype file, run folder, or name of a search space")
    show.add_argument("-o", "--output", type=str, default="network.svg", help="picture to write: .svg, .png or .dot")
    show.add_argument("--space", type=str, default=None, help="the space of the genotype, if it is a file of your own")
    show.add_argument("--part", type=str, default=None, help="one stage or cell, such as 'stage1' or 'normal cell 2'")
    verbs.add_subcommand("show", show, help=SHOW)
    compare = Parser(description=COMPARE)
    compare.add_argument("runs", type=str, nargs="+", help="run folders")
    compare.add_argument("-o", "--output", type=str, default=None, help="picture to write: .svg or .png")
    compare.add_argument("--table", type=str, nargs="+", default=None, help="tables to write: .md, .csv, .json or .txt")
    compare.add_argument(
        "--group", type=str, default=None, help="setting to group runs by, such as backbone or loss.eta"
    )
    compare.add_argument(
        "--mixed", action="store_true", help="compare runs on different data or protocols all the same"
    )
    verbs.add_subcommand("compare", compare, help=COMPARE)
    probe = Parser(description=PROBE)
    probe.add_argument("run", type=str, help="folder of a retraining")
    probe.add_argument("--data", type=str, default=None, help="another data set, in any layout of docs/data.md")
    probe.add_argument("--device", type=Device, default="auto", help="auto, cpu, cuda or mps")
    probe.add_argument("--space", type=str, default=None, help="the space of the network, if it is a file of your own")
    probe.add_argument("--json", action="store_true", help="print the numbers as one line of JSON, last")
    verbs.add_subcommand("probe", probe, help=PROBE)
    evaluation = Parser(description=_first_line(EvalConfig))
    evaluation.add_argument("run", type=str, help="folder of a retraining")
    for flag, meaning in (
        ("rerank", "k-reciprocal re-ranking as well, reported apart (cosine only)"),
        ("json", "print the numbers as one line of JSON, last"),
    ):
        evaluation.add_argument(f"--{flag}", action="store_true", help=meaning)
    evaluation.add_class_arguments(EvalConfig, skip={"run", "rerank", "json"})
    verbs.add_subcommand("eval", evaluation, help=_first_line(EvalConfig))
    latency = Parser(description=LATENCY)
    latency.add_argument("--space", type=str, required=True, help="name of a search space, or a Python file")
    latency.add_argument("--device", type=Device, default="auto", help="auto, cpu, cuda or mps: the one to serve on")
    latency.add_argument("--height", type=int, default=0, help="of the images, in pixels (0: the space's)")
    latency.add_argument("--width", type=int, default=0, help="of the images, in pixels (0: the space's)")
    latency.add_argument("--batch", type=int, default=1, help="images at a time")
    latency.add_argument("--rounds", type=int, default=20, help="measurements of every operation")
    latency.add_argument("-o", "--output", type=str, default="latency.json", help="table to write")
    verbs.add_subcommand("latency", latency, help=LATENCY)
    data = Parser(description=DATA)
    verbs.add_subcommand("data", data, help=DATA)
    synth = Parser(description=_first_line(SynthConfig))
    synth.add_argument("out", type=str, help="folder to write; it must not exist, or be empty")
    synth.add_argument(
        "--occluded", action="store_true", help="every query is occluded (the protocol of Occluded-REID)"
    )
    synth.add_class_arguments(SynthConfig, skip={"out", "occluded"})
    check = Parser(description=CHECK)
    check.add_argument("root", type=str, help="folder of a data set, or a CSV manifest")
    check.add_argument("--json", action="store_true", help="print everything as one line of JSON, last")
    actions = data.add_subcommands(dest="action")
    actions.add_subcommand("synth", synth, help="synthetic pedestrians in the layout of Market-1501")
    actions.add_subcommand("check", check, help=CHECK)
    return parser


def _first_line(config: type) -> str:
    return (config.__doc__ or "").splitlines()[0]


def _typed(kind: type[T], namespace: Namespace) -> T:
    return kind(**{name: namespace[name] for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


def _run(arguments: Sequence[str]) -> None:
    from dnas.data.synthetic import SynthConfig
    from dnas.search.config import SearchConfig
    from retrain.config import RetrainConfig
    from retrain.evaluate import EvalConfig

    runs: dict[str, tuple[type, Callable[[Any], None]]] = {
        "search": (SearchConfig, _search),
        "retrain": (RetrainConfig, _retrain),
    }
    verb, words = (arguments[0] if arguments else ""), list(arguments[1:])
    if verb in runs:
        if "--resume" in words:
            return _resume(verb, words)
        following = pairwise(words)
        files = [b for a, b in following if a == "--config"] + [w[9:] for w in words if w.startswith("--config=")]
        for file in files:
            _check_config_file(runs[verb][0], Path(file))
    parser = _parser()
    parsed: Namespace = parser.parse_args(arguments)
    chosen = parsed[verb]
    if verb in runs:
        kind, run = runs[verb]
        built = parser.instantiate(parsed)[verb]
        run(_typed(kind, built))
    elif verb == "data" and chosen.action == "check":
        _check(chosen.check)
    elif verb == "data":
        _synth(_typed(SynthConfig, chosen[chosen.action]))
    elif verb == "eval":
        _eval(_typed(EvalConfig, chosen))
    else:
        {"show": _show, "compare": _compare, "probe": _probe, "latency": _latency}[verb](chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0, 2 for bad input, 130 when interrupted (143 by SIGTERM)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _run(arguments)
    except UserError as error:
        errors.print(f"dnas: error: {error}", markup=False)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        errors.print(f"dnas: error: {where}{error.strerror or error}", markup=False)
        return 2
    except KeyboardInterrupt as interrupt:
        errors.print(
            "dnas: interrupted; what a search or retraining wrote is whole: go on with --resume DIR", markup=False
        )
        return 128 + getattr(interrupt, "number", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
