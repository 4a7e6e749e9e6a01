"""`dnas embed`: vectors of many files in one .npz, by one process or several, that goes on after a kill.

While it lasts, OUTPUT.partial/ has a file for every block of pictures that is done: whoever starts the same command
again, with any number of processes, does the blocks that are missing. Shapes: N good pictures, D embedding.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dnas.data.usable import OnBadImage, say_left_out
from dnas.errors import UserError, check_range
from dnas.run import distributed
from dnas.run.device import Device
from dnas.run.files import NPZ_ERRORS, read_json, replace_file, void, write_json
from dnas.run.progress import CountProgress
from dnas.serve.interface import Interface
from dnas.serve.listing import Listing, Stamp, Value, list_pictures
from dnas.serve.load import load
from dnas.serve.network import Embedder, Vectors
from dnas.serve.stream import embed_files

FORMAT = "dnas-vectors/1"
BLOCK = 512
"""Pictures that a kill can lose."""


@dataclass(frozen=True)
class EmbedConfig:
    """Embed pictures: their vectors in one file.

    Args:
        network: folder of a retraining, or an exported .onnx or .pt2 file.
        images: files, folders (searched below), CSV manifests with a column `path`; "-": paths on standard input.
        output: .npz file to write: vectors (N, D), paths as given, stamps (N, 2) of size and time of change, folder
            (that the paths start from), a column of the manifests each, network, left_out.
        named: take identity and camera from file names such as 0001_c1s1_000151_00.jpg.
        on_bad_image: what to do with a file that cannot be read: stop, or skip it and say so.
        batch: pictures at a time.
        device: auto, cpu, cuda or mps.
        space: the space of the network, if it is a file of your own.
    """

    network: str
    images: list[str]
    output: str
    named: bool = False
    on_bad_image: OnBadImage = "stop"
    batch: int = 64
    device: Device = "auto"
    space: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "", 1, BLOCK, "batch")
        if not self.output.endswith(".npz"):
            raise UserError(f"output: found {self.output}, allowed: a name that ends in .npz")


@dataclass(frozen=True)
class Done:
    """How many pictures are in the file, and the names of those that could not be read."""

    images: int
    left_out: tuple[str, ...]


def embed_to_file(config: EmbedConfig) -> Done:
    """Embed, in as many processes as call this under `torchrun`; the first one writes the file.

    Raises:
        UserError: no network, no pictures, a bad one where that stops, or an unfinished file of something else.
    """
    device = distributed.start(config.device)
    embedder = load(config.network, device, config.space)
    listing = list_pictures(config.images, config.named)
    output = Path(config.output)
    return embed_listing(embedder, listing, output, config.batch, config.on_bad_image)


def embed_listing(
    embedder: Embedder, listing: Listing, output: Path, batch: int = 64, on_bad_image: OnBadImage = "stop"
) -> Done:
    """`embed_to_file` for a network and pictures that are there already."""
    partial, stamps = output.with_name(f"{output.name}.partial"), list[Stamp]()
    if distributed.rank() == 0:
        stamps = listing.stamps()
        _begin(partial, embedder.interface, listing, stamps)
    distributed.wait_for_all()
    todo = [block for block in blocks(len(listing)) if not _file(partial, block).exists()]
    mine = todo[distributed.rank() :: distributed.world()]
    done = len(listing) - sum(len(block) for block in todo)
    with CountProgress("embed", len(listing), done) as bar:
        for block, found in _blocks_done(embedder, listing.paths, mine, batch, on_bad_image):
            replace_file(_file(partial, block), lambda stream, found=found: np.savez(stream, **found))  # type: ignore[misc]
            bar.advance(len(block) * min(distributed.world(), len(todo)))
    distributed.wait_for_all()
    if distributed.rank() > 0:
        return Done(0, ())
    left_out = _merge(partial, embedder.interface, listing, stamps, output)
    shutil.rmtree(partial)
    if left_out:
        say_left_out(left_out, "files that cannot be read as images")
    return Done(len(listing) - len(left_out), tuple(left_out))


def blocks(count: int) -> list[range]:
    return [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _file(partial: Path, block: range) -> Path:
    return partial / f"{block.start // BLOCK:07}.npz"


def _begin(partial: Path, interface: Interface, listing: Listing, stamps: Sequence[Stamp]) -> None:
    """A folder for what is done, or one that is there from the same command.

    Raises:
        UserError: it is from another command.
    """
    pictures = listing.digest(stamps)
    plan = {"format": FORMAT, "network": interface.network, "pictures": pictures, "images": len(listing)}
    file = partial / "plan.json"
    if file.exists() and read_json(file) != plan:
        raise UserError(f"{partial}: unfinished, of other pictures or another network; delete it, or choose another -o")
    write_json(file, plan)


def _blocks_done(
    embedder: Embedder, paths: Sequence[str], todo: Sequence[range], batch: int, on_bad_image: OnBadImage
) -> Iterator[tuple[range, dict[str, NDArray[Any]]]]:
    """Rows, vectors, and rows that are bad with the reasons, of one block after the other."""
    batches = [block[start : start + batch] for block in todo for start in range(0, len(block), batch)]
    stream = embed_files(embedder, paths, batches, on_bad_image)
    for block in todo:
        parts = [next(stream) for _ in range(0, len(block), batch)]
        bad = {row: reason for part in parts for row, reason in part.bad.items()}
        vectors = np.concatenate([part.vectors for part in parts])
        if not np.isfinite(vectors).all():
            raise UserError(f"{embedder.network.source}: its vectors are not finite: the training has diverged")
        rows = np.concatenate([part.rows for part in parts])
        yield block, {"rows": rows, "vectors": vectors, "bad": np.array([*bad], np.int64)}


def _merge(partial: Path, interface: Interface, listing: Listing, stamps: Sequence[Stamp], output: Path) -> list[str]:
    """One file of all blocks, read one at a time. Returns the names of what was left out."""
    kept: list[NDArray[np.int64]] = []
    left_out: list[str] = []
    for block in blocks(len(listing)):
        rows, bad = _read(partial, block, "rows", "bad")
        if not np.array_equal(np.sort(np.concatenate([rows, bad])), np.arange(block.start, block.stop)):
            raise _damaged(partial, block, "not of these pictures")
        kept.append(rows)
        left_out += [listing.paths[row] for row in bad]
    rows = np.concatenate(kept)

    def vectors() -> Iterator[Vectors]:
        for block, rows in zip(blocks(len(listing)), kept, strict=True):
            (found,) = _read(partial, block, "vectors")
            if found.shape != (len(rows), interface.embedding):
                raise _damaged(partial, block, f"vectors of shape {found.shape}")
            yield found

    def write(stream: IO[bytes]) -> None:
        with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
            _array(archive, "vectors", (len(rows), interface.embedding), np.dtype(np.float32), vectors())
            texts(archive, "paths", listing.paths, rows)
            known = (np.array([stamps[row] for row in part], np.int64) for part in kept)
            _array(archive, "stamps", (len(rows), 2), np.dtype(np.int64), known)
            texts(archive, "folder", [os.getcwd()], np.arange(1))
            for name, values in listing.columns.items():
                texts(archive, f"column {name}", values, rows)
            texts(archive, "left_out", left_out, np.arange(len(left_out)))
            texts(archive, "network", [json.dumps(interface.plain())], np.arange(1))

    replace_file(output, write)
    return left_out


def _read(partial: Path, block: range, *names: str) -> list[NDArray[Any]]:
    """Arrays of a block.

    Raises:
        UserError: it is damaged.
    """
    try:
        with np.load(_file(partial, block), allow_pickle=False) as found:
            return [found[name] for name in names]
    except NPZ_ERRORS as error:
        raise _damaged(partial, block, str(error)[:200]) from error


def _damaged(partial: Path, block: range, why: str) -> UserError:
    return UserError(f"{_file(partial, block)}: damaged ({why}); delete it, and it is done again")


def texts(archive: zipfile.ZipFile, name: str, values: Sequence[Value], rows: NDArray[np.int64]) -> None:
    """An array of text, a few thousand at a time: a copy of all would be four bytes a letter."""
    width = max((len(str(values[row])) for row in rows), default=1)
    kind = np.dtype(f"<U{max(width, 1)}")
    parts = (rows[start : start + 4096] for start in range(0, len(rows), 4096))
    _array(archive, name, (len(rows),), kind, (np.array([str(values[row]) for row in part], kind) for part in parts))


def _array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], kind: np.dtype[Any], parts: Iterator[NDArray[Any]]
) -> None:
    """An .npy file in the archive, written part by part."""
    header: Mapping[str, Any] = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_2_0(stream, header)  # type: ignore[arg-type]
        for part in parts:
            void(stream.write(np.ascontiguousarray(part, kind).tobytes()))
