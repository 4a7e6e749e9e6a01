"""A report as one HTML file that needs nothing else: no network, no other file; names from strangers are escaped.

Its policy lets the browser load nothing and run nothing but the one script that sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from dnas.run.files import replace_file, void


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    warning: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Code:
    """A command, or several."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        alt: what it shows, for who cannot see it.
        svg: an <svg> element of our own making; or
        png: a data address.
        white: drawn for white paper, also in the dark.
        tall: shown in a window that scrolls.
    """

    title: str
    alt: str
    svg: str = ""
    png: str = ""
    caption: str = ""
    white: bool = False
    tall: bool = False
    kind: str = "picture"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and the number to sort by if it is one."""

    text: str
    value: float | None = None
    word: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells; `folded`: behind its title until it is opened."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    sortable: bool = False
    folded: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Hit:
    """One photograph of a ranked list.

    Args:
        png: a data address of a PNG or JPEG; empty where the file is not there any more.
        heading: the similarity, say.
        verdict: above or below a threshold, in words.
        good: how it is framed; none: no verdict.
        details: names and values, shown when opened.
    """

    png: str
    alt: str
    heading: str
    title: str
    verdict: str = ""
    good: bool | None = None
    details: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Hits:
    """A query and what was found for it, in order."""

    query: Hit
    found: Sequence[Hit]
    kind: str = "hits"


Item = Text | Code | Picture | Table | Hits


@dataclass(frozen=True)
class Section:
    """A part with a heading; `name` is its place in links."""

    name: str
    title: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Report:
    """A page."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    warnings: Sequence[str] = field(default_factory=tuple)


def render(report: Report) -> str:
    """The HTML of a report."""
    here = files("dnas.draw")
    script = (here / "report.js").read_text("utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = template.from_string((here / "report.html").read_text("utf-8"))
    return page.render(report=report, script=script, script_hash=digest)


def write_page(report: Report, file: Path) -> None:
    """Write a report."""
    page = render(report).encode("utf-8", "backslashreplace")  # half characters in names of strangers
    replace_file(file, lambda stream: void(stream.write(page)))
