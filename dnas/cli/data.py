"""`dnas data check` and `dnas data synth`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, first_line, typed
from dnas.errors import UserError, printable
from dnas.run.progress import console

DATA = "Check and make data sets."
CHECK = "Check a data set before anything trains on it: counts, unreadable and duplicate images, the protocol."


def parser() -> Parser:
    from dnas.data.protocol import Cameras
    from dnas.data.synthetic import SynthConfig

    found = Parser(prog="dnas data", description=DATA)
    synth = Parser(description=first_line(SynthConfig))
    synth.add_argument("out", type=str, help="folder to write; it must not exist, or be empty")
    synth.add_argument(
        "--occluded", action="store_true", help="every query is occluded (the protocol of Occluded-REID)"
    )
    synth.add_class_arguments(SynthConfig, skip={"out", "occluded"})
    check = Parser(description=CHECK)
    check.add_argument("root", type=str, help="folder of a data set, or a CSV manifest")
    check.add_argument(
        "--cameras", type=Cameras, default="auto", help="what a query may be matched with (docs/data.md)"
    )
    check.add_argument("--json", action="store_true", help="print everything as one line of JSON, last")
    actions = found.add_subcommands(dest="action")
    actions.add_subcommand("synth", synth, help="synthetic pedestrians in the layout of Market-1501")
    actions.add_subcommand("check", check, help=CHECK)
    return found


def run(namespace: Namespace, words: Sequence[str]) -> None:
    if namespace.action == "check":
        _check(namespace.check)
    else:
        _synth(namespace.synth)


def _synth(namespace: Namespace) -> None:
    from dnas.data.synthetic import SynthConfig, synthesise

    config = typed(SynthConfig, namespace)
    counts = synthesise(config)
    console.print(
        f"wrote {sum(counts.values())} images to {config.out}: "
        + ", ".join(f"{name} {n}" for name, n in counts.items())
    )


def _check(config: Any) -> None:
    from rich.table import Table

    from dnas.data.check import PRIVACY, check, rows
    from dnas.data.layouts import load_data

    data = load_data(config.root, for_training=False, tested=False, cameras=config.cameras)
    summary, findings = check(data)
    beside = f"{summary['looks_like']}: images / identities" if summary["looks_like"] else "published"
    table = Table("split", "images", "identities", "cameras", beside)
    for row in rows(data, summary):
        table.add_row(*row)
    console.print(table)
    console.print(f"layout {summary['layout']}; ranked {data.protocol.said}; {summary['sizes']}")
    fingerprint = summary["fingerprint"]
    console.print(f"fingerprint {fingerprint['sha256'] if fingerprint else 'none, not everything can be read'}")
    for finding in findings:
        console.print(printable(f"{finding.kind}: {finding.text}"), markup=False, soft_wrap=True)
    console.print(PRIVACY)
    if config.json:
        print(json.dumps({**summary, "findings": [vars(finding) for finding in findings]}))
    if problems := [finding for finding in findings if finding.kind == "problem"]:
        raise UserError(f"data: {config.root}: {len(problems)} problems, listed above")


VERBS = {"data": Verb(DATA, parser, run)}
