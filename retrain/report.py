"""`dnas report`: everything about some runs in one HTML file, from their folders alone (and, for attention and ranked
lists, the checkpoint and a few images). A picture that cannot be drawn is a warning, in the report and on the terminal.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dnas.draw.figures import as_png, as_svg, svg_element
from dnas.draw.graph import picture_of
from dnas.draw.page import Code, Item, Picture, Report, Section, Text, write_page
from dnas.draw.retrieval import draw_cmc
from dnas.draw.scatter import Point, scatter
from dnas.draw.search import draw_choices, draw_course
from dnas.draw.training import draw_training
from dnas.errors import UserError, printable
from dnas.eval.measure import RETRIEVAL
from dnas.run.config import flat
from dnas.run.device import Device
from dnas.run.folder import RunFolder
from dnas.run.progress import errors
from dnas.space.graph import View, graph
from retrain.card import card_items
from retrain.compare import Comparison, Run, compare
from retrain.look import draw_attention, draw_grad_cam
from retrain.look_at import look_at
from retrain.models import network_of, open_space, run_measure, search_found, search_options
from retrain.report_tables import as_dict, origin, results_table, search_summary, selection_table, sortable_table
from retrain.tables import GROUPS, group_cells, pair_cells, pairs_title

MOST_OPTIONS = 160
"""Nodes of an open space that are still drawn."""


class Reporter:
    """Makes the sections of a report, and collects what could not be drawn.

    Args:
        images: pictures or ranked lists for each retraining; 0: no photographs in the report.
    """

    def __init__(self, images: int, device: Device, space: str | None, data: str | None) -> None:
        self.images, self.device, self.space, self.data = images, device, space, data
        self.warnings: list[str] = []
        self.pictures = 0

    def picture(self, title: str, alt: str, draw: Callable[[], Figure], caption: str = "", photo: bool = False) -> Item:
        """A chart as SVG, a figure with photographs as PNG; or a line that says why there is none."""
        return self._attempt(title, lambda name: self._drawn(name, title, alt, draw(), caption, photo))

    def network(self, title: str, alt: str, make: Callable[[], Any], caption: str) -> Item:
        """A graph of a network."""

        def drawn(name: str) -> Picture:
            svg = svg_element(picture_of(make(), title, "svg").decode(), name)
            return Picture(title, alt, svg=svg, caption=caption, white=True, tall=True)

        return self._attempt(title, drawn)

    def _attempt(self, title: str, make: Callable[[str], Picture]) -> Item:
        self.pictures += 1
        try:
            return make(f"p{self.pictures}")
        except Exception as error:  # whatever it is: the rest of the report is worth having
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            line = f"{title}: not drawn ({printable(reason)[:300]})"
            self.warnings.append(line)
            errors.print(f"dnas: warning: {line}", markup=False)
            return Text(line, warning=True)

    def _drawn(self, name: str, title: str, alt: str, figure: Figure, caption: str, photo: bool) -> Picture:
        if photo:
            return Picture(title, alt, png=as_png(figure), caption=caption)
        return Picture(title, alt, svg=as_svg(figure, name), caption=caption)

    def section(self, title: str, make: Callable[[], Section]) -> Section:
        """A section; where the files of a run are not as a run writes them, a line that says so."""
        try:
            return make()
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error}")[:200]
            line = f"{title}: its files are not as a run writes them ({reason})"
            self.warnings.append(line)
            errors.print(f"dnas: warning: {line}", markup=False)
            return Section(f"broken-{len(self.warnings)}", title, [Text(line, warning=True)])

    def search(self, folder: RunFolder, number: int) -> Section:
        """What a search has found, how it went there, and what it says about its own health."""
        rows, path = folder.rows(), folder.path
        by_options = ""
        if rows and rows[-1].get("options"):
            by_options = " It was derived by what options add to held-out verdicts: the last column."
        items: list[Item] = []
        if folder.genotype_file.exists():
            found = as_dict(as_dict(folder.json("genotype.json")).get("search"))
            items.append(search_summary(folder, found))
            warnings = as_dict(found.get("health")).get("warnings")
            lines = [str(line) for line in warnings] if isinstance(warnings, list) else []
            items += [Text(f"Health: {line}", warning=True) for line in lines]
            items += [] if lines else [Text("Health: nothing to worry about.")]

            def closed() -> Any:
                model = network_of(str(path), self.space)
                return graph(model.spec, model.input)

            def whole() -> Any:
                opened = open_space(str(path), self.space)
                network = graph(opened.space.spec, opened.space.input, View(weights=opened.probabilities))
                if len(network) > MOST_OPTIONS:
                    raise UserError(f"{len(network)} operations are too many: dnas show {path} --open --part STAGE")
                return network

            items.append(self.network(
                "The network it found", "Graph of the derived network, from image to embedding.", closed,
                "Blue: share of the multiply-accumulates. Orange frame: attention. Equal blocks that follow one another"
                " are drawn once, with their count.",
            ))  # fmt: skip
            items.append(self.network(
                "The space, with the probabilities at the end", "Graph of the space with every option.", whole,
                "A line is as wide as the option that it leads to is probable.",
            ))  # fmt: skip
        items.append(self.picture(
            "Choices over time", "One strip per choice: the probability of each of its options, epoch by epoch.",
            lambda: draw_choices(rows, search_options(folder), search_found(folder)),
            "Bright is probable; in bold the options of the network that it found." + by_options,
        ))  # fmt: skip
        items.append(self.picture(
            "The course of the search",
            "Losses, entropy, temperature, expected cost, held-out accuracy and information by epoch.",
            lambda: draw_course(rows, run_measure(folder)),
        ))  # fmt: skip
        return Section(f"search-{number}", f"Search {path.name}", [*items, *origin(folder)])

    def retraining(self, folder: RunFolder, number: int) -> Section:
        """What a trained network is, retrieves and looks at."""
        path = folder.path
        summary = as_dict(folder.json("summary.json"))
        items: list[Item] = [results_table(summary, as_dict(folder.json("cost.json")))]

        def closed() -> Any:
            model = network_of(str(path), self.space)
            return graph(model.spec, model.input)

        caption = "Blue: share of the multiply-accumulates. Orange frame: attention."
        items.append(self.network("Its network", f"Graph of the network {summary.get('model')}.", closed, caption))
        if "selection" in summary:
            items.append(selection_table(as_dict(summary["selection"])))
        if self.images:
            items += self.looks(folder)
        items += card_items(path)
        return Section(f"run-{number}", f"Retraining {path.name}", [*items, *origin(folder)])

    def looks(self, folder: RunFolder) -> list[Item]:
        """Pictures that need the checkpoint and images."""
        try:
            look = look_at(folder.path, self.data, self.device, self.space)
        except UserError as error:
            line = f"{folder.path.name}: no pictures of what it looks at and retrieves ({error})"
            self.warnings.append(line)
            errors.print(f"dnas: warning: {line}", markup=False)
            return [Text(line, warning=True)]
        count = self.images
        items: list[Item] = []
        if look.ranks:
            items.append(self.picture(
                "Ranked lists, the worst queries first",
                f"{count} queries, each with the ten nearest gallery images; right ones marked with a tick.",
                lambda: look.ranked(count),
                "Distance and camera above each picture. Solid blue frame and tick: the right identity; dashed red"
                " frame and cross: another one.", photo=True,
            ))  # fmt: skip
        items.append(self.picture(
            f"What makes an image similar to its {look.aim}",
            f"Maps over pictures: bright where what speaks for its {look.aim} comes from.",
            lambda: draw_grad_cam([look], count),
            f"How much each position adds to the similarity of an image to its {look.aim} (Grad-CAM,"
            " position by position). Each map goes from its own least to its most.", photo=True,
        ))  # fmt: skip
        if look.attends:
            items.append(self.picture(
                "Where its attention looks", "Attention maps over pictures of queries, a column for every stage.",
                lambda: draw_attention([look], count, (0.5, 0.5)),
                "From the position with the cross (in a transformer: from the class token).", photo=True,
            ))  # fmt: skip
        if look.weighs_channels:
            items.append(self.picture(
                "Which channels it selects or weighs",
                "For every stage: share or gate by channel, identity and camera.",
                look.channels,
            ))  # fmt: skip
        if look.ranks:
            title = "Distances of same and different identities"
            items.append(self.picture(title, "Two histograms of distances.", look.distances))
        items.append(self.picture(
            "The embedding in a plane", "Scatter of the embeddings of the test set, by identity or class.",
            look.plane, "t-SNE: neighbours are neighbours, distances between groups mean little.",
        ))  # fmt: skip
        return items

    def comparison(self, paths: Sequence[Path], mixed: bool) -> Section:
        """Tables, accuracy over cost, CMC curves, losses."""
        items: list[Item] = []
        try:
            found: Comparison | None = compare(paths, None, mixed)
        except UserError as error:
            found, line = None, f"not compared: {error}"
            self.warnings.append(line)
            errors.print(f"dnas: warning: {line}", markup=False)
            items.append(Text(line, warning=True))
        if found is not None:
            items.append(
                sortable_table("Models", GROUPS.format(found.protocol), [group_cells(group) for group in found.groups])
            )
            items += [Text(f"Note: {note}", warning=True) for note in found.notes]
            if found.pairs:
                pairs = [pair_cells(pair) for pair in found.pairs]
                items.append(sortable_table("Every two of them", pairs_title(found), pairs))
            points = [Point(g.title, g.values("macs"), [run.score for run in g.runs]) for g in found.groups]
            items.append(self.picture(
                "Accuracy over cost", "Accuracy over multiply-accumulates, one colour a model, with the Pareto front.",
                lambda: scatter(points, found.measure),
            ))  # fmt: skip
            matches = dict(zip(_names(paths), sorted_runs(found, paths), strict=True))
            if found.measure is RETRIEVAL:
                items.append(self.picture(
                    "CMC curves", "Share of the queries with a match among the first k, one line a run.",
                    lambda: draw_cmc({name: run.first_matches() for name, run in matches.items()}),
                ))  # fmt: skip
        rows = {name: RunFolder(path).rows() for name, path in zip(_names(paths), paths, strict=True)}
        measure = run_measure(RunFolder(paths[0]))
        items.append(self.picture(
            "Losses over time", "Loss terms, held-out accuracy and information by epoch, one colour a run.",
            lambda: draw_training(rows, measure), "Information: of the first run that measured it.",
        ))  # fmt: skip
        return Section("comparison", "Comparison", items)

    def bound(self, paths: Sequence[Path]) -> Section | None:
        """The same network without and with the bound, side by side, if both are among the runs."""
        pair = without_and_with(paths)
        if pair is None or not self.images:
            return None
        try:
            looks = [look_at(path, self.data, self.device, self.space) for path in pair]
        except UserError:
            return None  # each of them says it in a section of its own
        items: list[Item] = [
            Text(f"The same pictures under {looks[0].name} and {looks[1].name}; all other settings are the same."),
            self.picture(
                "Similarity to the match, without and with", "Maps over the same queries for both networks.",
                lambda: draw_grad_cam(looks, self.images), photo=True,
            ),
        ]  # fmt: skip
        if all(look.attends for look in looks):
            items.append(self.picture(
                "Attention, without and with", "Attention maps over the same queries for both networks.",
                lambda: draw_attention(looks, min(self.images, 4), (0.5, 0.5)), photo=True,
            ))  # fmt: skip
        return Section("bound", "Without and with the information bottleneck bound", items)


def _counted(number: int, one: str, several: str) -> str:
    return "" if number == 0 else f"{number} {one if number == 1 else several}"


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' own names where they tell the runs apart, else their paths."""
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def sorted_runs(comparison: Comparison, paths: Sequence[Path]) -> list[Run]:
    """The runs of a comparison in the order of their folders."""
    runs = {run.path: run for group in comparison.groups for run in group.runs}
    return [runs[path] for path in paths]


def without_and_with(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """The first two runs that differ in the weight of the bound alone, which one of them has not."""
    settings = [flat(RunFolder(path).config()) for path in paths]
    for a, one in zip(paths, settings, strict=True):
        for b, other in zip(paths, settings, strict=True):
            differing = {key for key in {*one, *other} if one.get(key) != other.get(key)} - {
                "out",
                "eval_every",
                "device",
            }
            if differing == {"loss.eta"} and one.get("loss.eta") == 0:
                return a, b
    return None


def make_report(
    runs: Sequence[str],
    file: Path,
    images: int = 4,
    device: Device = "auto",
    space: str | None = None,
    data: str | None = None,
    mixed: bool = False,
) -> list[str]:
    """Write the report of some searches and finished retrainings. Returns what could not be drawn.

    Raises:
        UserError: one of them is no run, or a retraining that is not finished.
    """
    folders = [RunFolder.open(path) for path in runs]
    searches = [folder for folder in folders if folder.verb() == "search"]
    trained = [folder for folder in folders if folder.verb() == "retrain"]
    for folder in folders:
        if folder.verb() not in ("search", "retrain"):
            raise UserError(f"{folder.path}: env.json: verb: found '{folder.verb()}', allowed: search, retrain")
    for folder in trained:
        if not (folder.path / "summary.json").is_file():
            raise UserError(f"{folder.path}: not finished; continue it with dnas retrain --resume {folder.path}")
    reporter = Reporter(images, device, space, data)
    sections: list[Section] = []
    paths = [folder.path for folder in trained]
    if trained:
        sections.append(reporter.comparison(paths, mixed))
        both = reporter.bound(paths)
        sections += [both] if both is not None else []
    for number, folder in enumerate(searches, start=1):
        sections.append(reporter.section(f"Search {folder.path.name}", partial(reporter.search, folder, number)))
    for number, folder in enumerate(trained, start=1):
        name = f"Retraining {folder.path.name}"
        sections.append(reporter.section(name, partial(reporter.retraining, folder, number)))
    words = ["dnas", "report", *runs, "-o", str(file)]
    sections.append(Section("made", "How this report was made", [Code(shlex.join(words))]))
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    counts = (_counted(len(searches), "search", "searches"), _counted(len(trained), "retraining", "retrainings"))
    lead = [f"{' and '.join(count for count in counts if count)}. Made on {made}, from the run folders alone."]
    if images and trained:
        lead.append("It contains pictures of the data set: mind who may see them (--images 0 leaves them out).")
    title = "Searched and trained: " + ", ".join(folder.path.name for folder in folders)
    write_page(Report(title, lead, sections, reporter.warnings), file)
    return reporter.warnings
