"""`dnas doctor`: is everything here that the other verbs want?"""

from __future__ import annotations

import json
from collections.abc import Sequence

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb
from dnas.errors import UserError
from dnas.run.progress import console

DOCTOR = "Look at this installation: versions, device, threads, cache, disk, programs, and what to do about each."


def parser() -> Parser:
    found = Parser(prog="dnas doctor", description=DOCTOR)
    found.add_argument("--json", action="store_true", help="print everything as one line of JSON, last")
    return found


def run(config: Namespace, words: Sequence[str]) -> None:
    from rich.table import Table

    from dnas.run.doctor import examine

    findings = examine()
    table = Table("", "found", "what to do")
    for finding in findings:
        table.add_row(finding.name, finding.found, finding.advice)
    console.print(table, markup=False)
    if config.json:
        print(json.dumps([vars(finding) for finding in findings]))
    if missing := [finding for finding in findings if finding.needed and finding.advice]:
        raise UserError("doctor: " + "; ".join(f"{finding.name}: {finding.advice}" for finding in missing))


VERBS = {"doctor": Verb(DOCTOR, parser, run)}
