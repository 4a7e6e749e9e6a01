"""What somebody needs to use a network without this program: the interface of an exported file, and of a gallery.

It is the sidecar JSON of an exported network, is in the file's own metadata, and says which galleries are its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dnas.errors import UserError
from dnas.eval.embed import Distance
from dnas.imagenet import MEAN, STD
from dnas.run.config import from_plain
from dnas.run.files import read_json
from dnas.run.folder import environment
from retrain.calibrate import strictest
from retrain.load import TrainedRun

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class Interface:
    """A network for people and programs.

    Args:
        network: SHA-256 of the weights and of what else decides the vectors; the same for a run and its exports.
        height, width: pixels that the network looks at.
        prepared: the file takes pictures of any one size, uint8 (B, H, W, 3); else float32 (B, 3, height, width),
            resized by `interpolation`, then (value / 255 - mean) / std for each colour.
        precision: that the file computes in; vectors are float32.
        embedding: length of a vector.
        distance: `cosine`: vectors have length 1, compare by dot products; or `euclidean`.
        flip_average: a vector is of a picture and of its mirror image; the file does that itself.
        threshold: similarity (cosine, or minus the euclidean distance) above which two pictures are taken for one
            person; none until it is measured.
        false_share: of the pairs of different people that are above the threshold.
        genotype: choices of a searched network.
        data: name and fingerprint of the training data.
        versions: of the libraries that made the file.
    """

    network: str
    model: str
    height: int
    width: int
    embedding: int
    distance: Distance
    flip_average: bool
    prepared: bool = True
    precision: Precision = "fp32"
    colour: Literal["RGB"] = "RGB"
    interpolation: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    mean: list[float] = field(default_factory=lambda: list(MEAN))
    std: list[float] = field(default_factory=lambda: list(STD))
    threshold: float | None = None
    false_share: float | None = None
    genotype: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    format: Literal["dnas-network/1"] = "dnas-network/1"

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def check_same(self, other: Interface, where: str) -> None:
        """Refuse vectors of another network.

        Raises:
            UserError: they cannot be compared with these.
        """
        if other.network != self.network:
            raise UserError(
                f"{where}: its vectors are of network {other.network[:12]} ({other.model}), these of"
                f" {self.network[:12]} ({self.model}): they cannot be compared"
            )


def interface_of(content: object, where: str) -> Interface:
    """An interface from data that a file held.

    Raises:
        UserError: not one, naming the entry.
    """
    interface = from_plain(Interface, content, where)
    if not (0 < interface.height <= 4096 and 0 < interface.width <= 4096 and 0 < interface.embedding <= 1 << 16):
        raise UserError(f"{where}: height, width or embedding out of range")
    if (interface.mean, interface.std) != (list(MEAN), list(STD)):
        raise UserError(f"{where}: mean and std: found {interface.mean}, {interface.std}, allowed: those of ImageNet")
    return interface


def read_interface(file: Path) -> Interface:
    """The sidecar of an exported network."""
    return interface_of(read_json(file), str(file))


def run_interface(run: TrainedRun) -> Interface:
    """The interface of a retraining, with the threshold if one has been measured."""
    folder, network = run.folder, run.network
    config = run.config
    data = folder.json("data.json")
    known = data if isinstance(data, Mapping) else {}
    genotype = folder.json(folder.genotype_file.name) if folder.genotype_file.exists() else {}
    choices = genotype.get("choices") if isinstance(genotype, Mapping) else None
    threshold, share = strictest(folder) or (None, None)
    return Interface(
        network=fingerprint(network.state_dict(), run),
        model=run.model.name,
        height=run.model.input.height,
        width=run.model.input.width,
        embedding=network.classifier.weight.shape[1],
        distance=config.distance,
        flip_average=config.flip_average,
        threshold=threshold,
        false_share=share,
        genotype=choices if isinstance(choices, dict) else None,
        data={key: known[key] for key in ("name", "sha256") if isinstance(known.get(key), str)},
        versions={**environment(), **{name: version(name) for name in ("pillow",)}},
    )


def fingerprint(state: Mapping[str, Tensor], run: TrainedRun) -> str:
    """SHA-256 over the weights that an embedding depends on, and how they are used."""
    config, shape = run.config, run.model.input
    used = f"{shape.height} {shape.width} {config.distance} {config.flip_average} {run.model.name}"
    digest = hashlib.sha256(used.encode())
    for name, value in sorted(state.items()):
        if not name.startswith("classifier.") and not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
