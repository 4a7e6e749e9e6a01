"""`dnas sweep`: many searches or retrainings, by any number of workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from dnas.cli import own, training
from dnas.cli.parser import Parser, Verb
from dnas.errors import UserError
from dnas.run.progress import console

SWEEP = "Run many searches or retrainings: all combinations of settings, or settings drawn from ranges."


def parser() -> Parser:
    found = Parser(prog="dnas sweep", description=SWEEP)
    found.add_argument("file", type=str, help="YAML file: verb, out, settings, vary (docs/distributed.md)")
    found.add_argument("--json", action="store_true", help="print all runs as one line of JSON, last")
    found.add_argument("--space", type=str, default=None, help="the space of all runs, if it is a file of your own")
    return found


def run(namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.run.config import from_plain
    from dnas.run.files import read_yaml
    from dnas.run.sweep import Sweep, SweepConfig
    from dnas.run.sweep_tables import tables

    config = from_plain(SweepConfig, read_yaml(Path(namespace.file)), namespace.file)
    _check(config, namespace.file)
    sweep = Sweep(config, namespace.space, [word for word in words if word.startswith(f"{own.OPTION}=")])
    sweep.work()
    rows = sweep.rows()
    for table in tables(rows):
        console.print(table)
    if others := sum(row["state"] == "running" for row in rows):
        console.print(f"sweep: {others} runs are still being done by other workers")
    if namespace.json:
        print(json.dumps(rows))
    if failed := [row["run"] for row in rows if row["state"] == "fail"]:
        raise UserError(f"sweep: {len(failed)} runs failed: {', '.join(failed)}; the same command tries them again")


def _check(config: object, file: str) -> None:
    """Every combination must be a valid run, before any is started."""
    from dnas.run.sweep import SweepConfig

    assert isinstance(config, SweepConfig)
    low = {key: _between(values) for key, values in config.ranges.items()}
    first = {key: values[0] for key, values in config.vary.items() if isinstance(values, list)}
    if "out" in config.settings:
        raise UserError(f"{file}: settings: out: not here, every run has a folder of its own in the sweep's out")
    parser = training.parser(config.verb)
    for params in config.combinations() or [{**first, **low}]:
        try:
            namespace = parser.parse_args([*config.words(params), "--out=o"])
            parsed = parser.instantiate(namespace)
        except UserError as error:
            raise UserError(f"{file}: {', '.join(f'{k} {v}' for k, v in params.items())}: {error}") from error
        if config.ranges and parsed["holdout"] == 0:
            raise UserError(f"{file}: ranges are decided on held-out identities: set holdout in settings")


def _between(values: dict[str, Any]) -> float:
    """A value of a range: a whole number where both ends are."""
    ends = values["low"], values["high"]
    whole = all(isinstance(end, int) for end in ends)
    return int(values["low"]) if whole else float(values["low"]) + 0.37 * float(values["high"] - values["low"])


VERBS = {"sweep": Verb(SWEEP, parser, run)}
