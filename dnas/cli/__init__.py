"""The command line: `dnas VERB --config F.yaml --data ROOT --out DIR [--key value ...]`; a file for each kind of verb.

Bad input ends with one line and exit code 2. These files import what is heavy (torch, matplotlib) within functions
only, so that `dnas --help` is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from dnas.cli import data, doctor, drawing, measuring, own, reporting, serving, showing, sweeping, training
from dnas.cli.parser import Parser, Verb
from dnas.cli.terminal import print_anything
from dnas.errors import UserError, printable
from dnas.run.progress import errors
from dnas.run.recipes import with_files
from dnas.version import own_version

MODULES = (training, showing, drawing, reporting, measuring, serving, sweeping, data, doctor)
VERBS: dict[str, Verb] = {name: verb for module in MODULES for name, verb in module.VERBS.items()}


def _overview() -> Parser:
    """For `dnas`, `dnas --help` and `dnas --version`, and for words that are no verb."""
    parser = Parser(
        prog="dnas",
        version=own_version(),
        description="Search, retrain and compare networks for person re-identification.",
    )
    verbs = parser.add_subcommands(dest="verb")
    for name, verb in VERBS.items():
        verbs.add_subcommand(name, Parser(description=verb.help), help=verb.help)
    return parser


def _run(arguments: Sequence[str]) -> None:
    files, arguments = own.split(arguments)
    name, words = (arguments[0] if arguments else ""), list(arguments[1:])
    if name not in VERBS:
        _overview().parse_args(list(arguments) or ["--help"])
        return
    own.register(files)
    if name in training.VERBS:
        words = with_files(words)
        if any(word.split("=")[0] == "--resume" for word in words) and not {"-h", "--help"} & {*words}:
            return training.resume(name, words)
        words = training.with_config_files(name, words)
    verb = VERBS[name]
    verb.run(verb.parser().parse_args(words), [*words, *(f"{own.OPTION}={file}" for file in files)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Returns:
        The exit code: 0, 1 when whoever read the output has gone, 2 for bad input, 3 for a lost rank, 130 when
        interrupted (143 by SIGTERM).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    print_anything()
    try:
        _run(arguments)
        sys.stdout.flush()
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except OSError as error:
        if lost := _lost_peer(error):
            return _say(lost, 3)
        if isinstance(error, BrokenPipeError):  # whoever read has what it wanted, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
            return 1
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "; what was written before is whole, a run goes on with --resume DIR" if full else ""
        return _say(f"error: {where}{error.strerror or error}{hint}", 2)
    except RuntimeError as error:
        if lost := _lost_peer(error):
            return _say(lost, 3)
        raise
    except KeyboardInterrupt as interrupt:
        hint = "what a search or retraining wrote is whole: go on with --resume DIR; embed and index: type it again"
        _say(f"interrupted; {hint}")
        return 128 + getattr(interrupt, "number", 2)
    return 0


def _lost_peer(error: Exception) -> str | None:
    from dnas.run.distributed import lost_peer

    return lost_peer(error)


def _say(text: str, code: int = 0) -> int:
    errors.print(printable(f"dnas: {text}"), markup=False)
    return code
