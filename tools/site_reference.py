"""Pages of the site that are made from the code (mkdocs calls this): settings of every verb, the Python interface."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

MODULES = {
    "space": ("Spaces and networks", ["dnas.space", "search_spaces", "dnas.nn"]),
    "search": ("Search", ["dnas.search"]),
    "loss": ("Losses and evaluation", ["dnas.loss", "dnas.eval"]),
    "data": ("Data", ["dnas.data"]),
    "serve": ("Tasks and serving", ["dnas.task", "dnas.serve"]),
    "retrain": ("Runs and retraining", ["retrain", "dnas.run", "dnas.draw"]),
}
"""Page -> its title and packages (a test holds that none is forgotten)."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"verbs": verbs(), **{name: modules(*page) for name, page in MODULES.items()}}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def modules(title: str, packages: list[str]) -> str:
    """The docstrings of every module of some packages."""
    names = [name for package in packages for name in _modules(package)]
    return f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in names) + "\n"


def _modules(package: str) -> Iterator[str]:
    folder = ROOT / package.replace(".", "/")
    for file in sorted(folder.rglob("*.py")):
        words = file.relative_to(ROOT).with_suffix("").parts
        if words[-1] != "__init__":
            yield ".".join(words)


def verbs() -> str:
    """Every verb with its options."""
    from dnas.cli import VERBS

    parts = [
        "# Verbs and settings",
        "`dnas VERB --help` prints the same. A setting with a dot is a key of a YAML file too.",
    ]
    for name, verb in VERBS.items():
        parts += [f"## dnas {name}", verb.help, *_tables(verb.parser())]
    return "\n\n".join(parts) + "\n"


def _tables(parser: Any) -> Iterator[str]:
    rows = [row for action in parser._actions if (row := _row(action))]
    if rows:
        yield "\n".join(["| setting | default | |", "|---|---|---|", *rows])
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield f"### {parser.prog.split('[')[0].strip()} {name}"
                yield from _tables(inner)


def _row(action: argparse.Action) -> str:
    """A line of the table; none for help, and for what only groups others."""
    hidden = action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
    name = ", ".join(action.option_strings) or action.dest
    if hidden or name.startswith(("--help", "-h", "--print", "--optim.help")) or name.endswith(".help"):
        return ""
    default = "" if action.default in (None, argparse.SUPPRESS) else f"`{action.default}`"
    text = " ".join((action.help or "").split())
    return f"| `{name}` | {_cell(default)} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")
