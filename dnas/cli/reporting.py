"""`dnas report` and `dnas card`: what is to be known about some runs, as a page and as a file for the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, add_device, add_space
from dnas.errors import UserError, check_range
from dnas.run.progress import console

REPORT = "Everything about some searches and retrainings in one HTML file that needs nothing else."


CARD = "The model card of a trained network: Markdown with the front matter of the Hugging Face Hub."


def card_parser() -> Parser:
    found = Parser(prog="dnas card", description=CARD)
    found.add_argument("runs", type=str, nargs="+", help="folder of a finished retraining; several: seeds of one model")
    found.add_argument("-o", "--output", type=str, default=None, help="file to write (.md), else it is printed")
    return found


def card(config: Namespace, words: Sequence[str]) -> None:
    from dnas.run.files import write_text
    from retrain.card import markdown, model_card

    text = markdown(model_card(config.runs))
    if config.output is None:
        print(text, end="")
        return
    file = Path(config.output)
    if file.suffix != ".md":
        raise UserError(f"{file}: cannot write '{file.suffix}', allowed: .md")
    write_text(file, text)
    console.print(f"wrote {file}", markup=False)


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


VERBS = {"report": Verb(REPORT, parser, run), "card": Verb(CARD, card_parser, card)}
