"""`dnas index`: fill a gallery, or add to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dnas.data.usable import OnBadImage, say_left_out
from dnas.errors import check_range
from dnas.run.device import Device
from dnas.serve.gallery import Gallery, read_vectors
from dnas.serve.graph import Graph
from dnas.serve.listing import list_pictures
from dnas.serve.load import load


@dataclass(frozen=True)
class IndexConfig:
    """Fill a gallery with the vectors of pictures, or add to it.

    Args:
        network: folder of a retraining, or an exported .onnx or .pt2 file.
        images: files, folders (searched below), CSV manifests with a column `path`; "-": paths on standard input; and
            .npz files of `dnas embed`.
        output: folder of the gallery.
        named: take identity and camera from file names such as 0001_c1s1_000151_00.jpg.
        on_bad_image: what to do with a file that cannot be read: stop, or skip it and say so.
        batch: pictures at a time; a kill can lose one batch.
        device: auto, cpu, cuda or mps.
        space: the space of the network, if it is a file of your own.
    """

    network: str
    images: list[str]
    output: str = "gallery"
    named: bool = False
    on_bad_image: OnBadImage = "stop"
    batch: int = 64
    device: Device = "auto"
    space: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "", 1, 4096, "batch")


@dataclass(frozen=True)
class Indexed:
    """What became of a gallery.

    Args:
        added: pictures that are new, or of which something is.
        size: pictures in it.
        built: the approximate index, if one was.
    """

    added: int
    size: int
    built: Graph | None


def index(config: IndexConfig) -> Indexed:
    """Add pictures to the gallery of a folder, made if there is none.

    Raises:
        UserError: no pictures, a bad one where that stops, a gallery of another network, or another writer.
    """
    files = [Path(name) for name in config.images if name.endswith(".npz")]
    sources = [name for name in config.images if not name.endswith(".npz")]
    listing = list_pictures(sources, config.named) if sources else None
    embedder = load(config.network, config.device, config.space)
    gallery = Gallery.create(config.output, embedder)
    added, left_out = 0, list[str]()
    for file in files:
        interface, rows, stamps, vectors = read_vectors(file)
        embedder.interface.check_same(interface, str(file))
        for start in range(0, len(rows), 4096):
            part = slice(start, start + 4096)
            gallery.add_vectors(rows[part], vectors[part], stamps[part])
        added += len(rows)
    if listing is not None:
        more, left_out = gallery.add(listing, config.on_bad_image, config.batch)
        added += more
    if left_out:
        say_left_out(left_out, "files that cannot be read as images")
    return Indexed(added, len(gallery), gallery.settle())
