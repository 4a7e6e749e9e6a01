"""`dnas find`: the pictures of a gallery that are most like some others; as a table, a page, CSV or JSON."""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.table import Table

from dnas.data.picture import BadImage, read_rgb
from dnas.draw.page import Hit, Hits, Report, Section, Text, write_page
from dnas.errors import UserError, check_range
from dnas.run.device import Device
from dnas.run.files import write_json, write_text
from dnas.serve.gallery import Gallery, Match
from dnas.serve.interface import Interface
from dnas.serve.listing import list_pictures
from dnas.serve.stream import embed_files

FORMATS = (".html", ".csv", ".json")
THUMBNAIL = (192, 256)
"""Largest width and height of a photograph in a page."""
MOST_PHOTOGRAPHS = 5000
"""In one page: some 30 MB."""


@dataclass(frozen=True)
class FindConfig:
    """Find the pictures of a gallery that are most like some others.

    Args:
        gallery: folder of a gallery.
        images: the queries: files, folders (searched below), CSV manifests with a column `path`; "-": standard input.
        output: file to write: .html, .csv or .json; a table is printed without.
        k: pictures to find for each query.
        where: conditions on what may be found: COLUMN=VALUE (or !=, <, <=, >, >=).
        rerank: put the nearest 200 in order by k-reciprocal re-ranking.
        network: the network of the gallery, if it is not where it was: a run folder, or an exported .onnx or .pt2 file.
        device: auto, cpu, cuda or mps.
        space: the space of the network, if it is a file of your own.
    """

    gallery: str
    images: list[str]
    output: str | None = None
    k: int = 10
    where: list[str] | None = None
    rerank: bool = False
    network: str | None = None
    device: Device = "auto"
    space: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "", 1, 10_000, "k")
        if self.output is not None and Path(self.output).suffix not in FORMATS:
            raise UserError(f"output: cannot write '{Path(self.output).suffix}', allowed: {', '.join(FORMATS)}")


@dataclass(frozen=True)
class Found:
    """Queries, and for each of them what was found, the nearest first."""

    queries: Sequence[str]
    matches: Sequence[Sequence[Match]]
    interface: Interface
    gallery: str
    size: int


def find(config: FindConfig) -> Found:
    """Search, and write the output.

    Raises:
        UserError: no gallery, no queries, one that is no image, or a condition on a column that is not there.
    """
    listing = list_pictures(config.images)
    gallery = Gallery.open(config.gallery, config.network, config.device, config.space)
    starts = range(0, len(listing), 64)
    batches = [range(start, min(start + 64, len(listing))) for start in starts]
    vectors = np.concatenate([part.vectors for part in embed_files(gallery.embedder, listing.paths, batches)])
    matches = gallery.find_vectors(vectors, config.k, config.where or (), config.rerank)
    found = Found(listing.paths, matches, gallery.embedder.interface, config.gallery, len(gallery))
    if config.output is not None:
        writers = {".html": write_html, ".csv": write_csv, ".json": write_found_json}
        writers[Path(config.output).suffix](found, Path(config.output))
    return found


def threshold_words(interface: Interface) -> str:
    """What the threshold is, for people."""
    if interface.threshold is None:
        return "no threshold has been measured for this network (dnas calibrate)"
    share = (
        f"{interface.false_share:.2%} of pairs of different people, whom it was not trained on"
        if interface.false_share
        else "few pairs"
    )
    return f"threshold {interface.threshold:.3f}: above it are {share}"


def table(found: Found) -> Table:
    """The result for a terminal."""
    result = Table(
        "query", "rank", "similarity", "threshold", "found", "columns", title=threshold_words(found.interface)
    )
    for query, matches in zip(found.queries, found.matches, strict=True):
        for rank, match in enumerate(matches, start=1):
            columns = ", ".join(f"{name} {value}" for name, value in match.columns.items())
            first = os.path.basename(query) if rank == 1 else ""
            name = os.path.basename(match.path)
            result.add_row(first, str(rank), f"{match.similarity:.3f}", verdict(match), name, columns)
    return result


def verdict(match: Match) -> str:
    return "" if match.above is None else "above" if match.above else "below"


def write_found_json(found: Found, file: Path) -> None:
    pairs = zip(found.queries, found.matches, strict=True)
    queries = [{"query": query, "found": [asdict(match) for match in matches]} for query, matches in pairs]
    interface = found.interface
    write_json(file, {"network": interface.network, "threshold": interface.threshold, "queries": queries})


def write_csv(found: Found, file: Path) -> None:
    names = list(dict.fromkeys(name for matches in found.matches for match in matches for name in match.columns))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["query", "rank", "similarity", "above_threshold", "path", *names])
    for query, matches in zip(found.queries, found.matches, strict=True):
        for rank, match in enumerate(matches, start=1):
            above = "" if match.above is None else int(match.above)
            columns = (match.columns.get(name, "") for name in names)
            writer.writerow([query, rank, f"{match.similarity:.6f}", above, match.path, *columns])
    write_text(file, text.getvalue())


def write_html(found: Found, file: Path) -> None:
    """One page that needs nothing else: queries, ranked photographs, similarities, above or below the threshold."""
    count = sum(len(matches) for matches in found.matches)
    if count + len(found.queries) > MOST_PHOTOGRAPHS:
        raise UserError(
            f"output: {count} photographs are too many for one page, allowed: {MOST_PHOTOGRAPHS}; give fewer queries, a"
            " smaller -k, or -o found.csv"
        )
    sections = []
    for number, (query, matches) in enumerate(zip(found.queries, found.matches, strict=True), start=1):
        shown = [_hit(rank, match) for rank, match in enumerate(matches, start=1)]
        items: list[Hits | Text] = [Hits(_query(query), shown)]
        if not matches:
            items.append(Text("Nothing in the gallery meets the conditions."))
        elif not any(match.above for match in matches) and matches[0].above is not None:
            items.append(Text("Nothing is above the threshold: this person may not be in the gallery."))
        sections.append(Section(f"query-{number}", f"{number}. {os.path.basename(query)}", items))
    interface = found.interface
    what = f"Gallery {found.gallery}, {found.size:,} pictures; network {interface.model} ({interface.network[:12]})"
    lead = [what, threshold_words(interface)[0].upper() + threshold_words(interface)[1:] + "."]
    warning = "These are photographs of people. Similarity is not identity: a person has to look."
    write_page(Report(f"Found in {os.path.basename(os.path.normpath(found.gallery))}", lead, sections, [warning]), file)


def _query(path: str) -> Hit:
    return Hit(
        thumbnail(path), f"query {os.path.basename(path)}", "query", os.path.basename(path), details=[("path", path)]
    )


def _hit(rank: int, match: Match) -> Hit:
    said = verdict(match)
    columns = [(name, str(value)) for name, value in match.columns.items()]
    return Hit(
        png=thumbnail(match.path),
        alt=f"rank {rank}, similarity {match.similarity:.3f}",
        heading=f"{rank}. {match.similarity:.3f}",
        title=os.path.basename(match.path),
        verdict=said and f"{said} the threshold",
        good=match.above,
        details=[*columns, ("path", match.path)],
    )


def thumbnail(path: str) -> str:
    """A data address; empty where the file cannot be read any more."""
    try:
        picture = read_rgb(Path(path))
    except BadImage:
        return ""
    picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
