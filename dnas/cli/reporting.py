"""`dnas report`: one HTML file about searches and retrainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, add_device, add_space
from dnas.errors import UserError, check_range
from dnas.run.progress import console

REPORT = "Everything about some searches and retrainings in one HTML file that needs nothing else."


def parser() -> Parser:
    found = Parser(prog="dnas report", description=REPORT)
    found.add_argument("runs", type=str, nargs="+", help="folders of searches and finished retrainings")
    found.add_argument("-o", "--output", type=str, default="report.html", help="file to write")
    found.add_argument("--images", type=int, default=4, help="pictures for each retraining; 0: no photographs")
    found.add_argument("--data", type=str, default=None, help="where the data set is, if not where it was")
    found.add_argument("--mixed", action="store_true", help="compare runs on different data or protocols all the same")
    add_device(found)
    add_space(found)
    return found


def run(config: Namespace, words: Sequence[str]) -> None:
    from retrain.report import make_report

    check_range(config, "", 0, 20, "images")
    file = Path(config.output)
    if file.suffix not in (".html", ".htm"):
        raise UserError(f"{file}: cannot write '{file.suffix}', allowed: .html")
    missing = make_report(config.runs, file, config.images, config.device, config.space, config.data, config.mixed)
    said = f", {len(missing)} pictures could not be drawn" if missing else ""
    console.print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB{said})", markup=False)


VERBS = {"report": Verb(REPORT, parser, run)}
