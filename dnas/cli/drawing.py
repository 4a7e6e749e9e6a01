"""`dnas draw`: one picture of a search or of retrainings, after the fact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, add_device, add_space
from dnas.errors import UserError, check_range
from dnas.run.progress import console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrain.look import Look

DRAW = "Draw one picture of a search or of retrainings, from their folders."
Kind = Literal[
    "choices", "course", "training", "attention", "gradcam", "channels", "ranked", "plane", "distances", "cmc"
]
SEVERAL = ("training", "attention", "gradcam", "cmc")
MEANINGS = (
    "choices: probabilities of every choice of a search; course: losses, entropy, cost of a search; training: losses of"
    " retrainings; attention, gradcam, channels: what a network looks at; ranked: ranked lists; plane: the embedding;"
    " distances: of same and different identities; cmc: of runs"
)


def parser() -> Parser:
    found = Parser(prog="dnas draw", description=DRAW)
    found.add_argument("kind", type=Kind, help=MEANINGS)
    found.add_argument("runs", type=str, nargs="+", help=f"run folders; several for {', '.join(SEVERAL)}")
    found.add_argument("-o", "--output", type=str, default=None, help="picture to write: .svg, .png or .pdf (KIND.png)")
    found.add_argument("--images", type=int, default=6, help="pictures or ranked lists to show")
    found.add_argument("--token", type=list[float], default=[0.5, 0.5], help="row and column, 0 to 1, that attends")
    found.add_argument("--best", action="store_true", help="ranked: the best queries first, not the worst")
    found.add_argument("--method", type=Literal["tsne", "pca"], default="tsne", help="plane: how to get there")
    found.add_argument("--data", type=str, default=None, help="another data set than that of the run")
    add_device(found)
    add_space(found)
    return found


def run(config: Namespace, words: Sequence[str]) -> None:
    from dnas.draw.figures import check_format, save

    output = Path(config.output or f"{config.kind}.png")
    check_format(output)
    check_range(config, "", 1, 100, "images")
    if len(config.token) != 2 or not all(0 <= value <= 1 for value in config.token):
        raise UserError(f"token: found {config.token}, allowed: [ROW,COLUMN], both between 0 and 1")
    if len(config.runs) > 1 and config.kind not in SEVERAL:
        raise UserError(f"draw {config.kind}: found {len(config.runs)} runs, allowed: one")
    try:
        figure = _figure(config)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"{', '.join(config.runs)}: its files are not as a run writes them ({reason})") from error
    save(figure, output)
    console.print(f"wrote {output}", markup=False)


def _figure(config: Namespace) -> Figure:
    from dnas.draw.retrieval import draw_cmc
    from dnas.draw.search import draw_choices, draw_course
    from dnas.draw.training import draw_training
    from dnas.run.folder import RunFolder
    from retrain.compare import read_run
    from retrain.look import draw_attention, draw_grad_cam
    from retrain.look_at import look_at
    from retrain.models import run_measure, search_found, search_options

    kind, paths = config.kind, config.runs
    if kind in ("choices", "course"):
        folder = RunFolder.open(paths[0])
        if folder.verb() != "search":
            raise UserError(f"{folder.path}: draw {kind} is for a search, this is a {folder.verb()}")
        return (
            draw_course(folder.rows(), run_measure(folder))
            if kind == "course"
            else draw_choices(folder.rows(), search_options(folder), search_found(folder))
        )
    if kind == "training":
        folders = {path: RunFolder.open(path) for path in paths}
        rows = {path: folder.rows() for path, folder in folders.items()}
        return draw_training(rows, run_measure(folders[paths[0]]))
    if kind == "cmc":
        return draw_cmc({path: read_run(path).first_matches() for path in paths})
    looks = [look_at(path, config.data, config.device, config.space) for path in paths]
    drawn: dict[str, Callable[[Look], Any]] = {
        "channels": lambda look: look.channels(),
        "ranked": lambda look: look.ranked(config.images, best=config.best),
        "plane": lambda look: look.plane(config.method),
        "distances": lambda look: look.distances(),
        "attention": lambda look: draw_attention(looks, config.images, tuple(config.token)),
        "gradcam": lambda look: draw_grad_cam(looks, config.images),
    }
    found: Figure = drawn[kind](looks[0])
    return found


VERBS = {"draw": Verb(DRAW, parser, run)}
