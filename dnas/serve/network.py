"""A network that turns pictures into vectors, whatever it runs on: a retraining in torch, or an exported file.

Shapes: B batch, N pictures, D embedding, H W pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dnas.data.images import normalise
from dnas.data.picture import read_pixels, upright
from dnas.errors import UserError
from dnas.run.device import Device, pick_device
from dnas.serve.exportable import Exportable
from dnas.serve.interface import Interface, run_interface
from retrain.load import load as load_run

Vectors = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Picture = str | Path | Image.Image | NDArray[np.uint8] | Tensor
"""A path; a Pillow image; or uint8 RGB pixels (H, W, 3) of any size, in an array or a tensor."""


class Network(Protocol):
    """Vectors of prepared batches."""

    interface: Interface
    source: Path

    def stream(self, batches: Iterator[Pixels]) -> Iterator[Vectors]:
        """Vectors (B, D) of one batch (B, H, W, 3) after the other, at the network's own size."""
        ...


class Embedder:
    """The network of a run folder or an exported file: `run = dnas.load("runs/x"); run.embed(["a.jpg"])`."""

    def __init__(self, network: Network) -> None:
        self.network, self.interface = network, network.interface

    def embed(self, pictures: Picture | Sequence[Picture], batch: int = 32) -> Vectors:
        """Vectors (N, D), float32; of length 1 where the network compares by cosine.

        Args:
            pictures: one or several of: a path; a Pillow image, turned upright as a file is; uint8 RGB pixels (H, W, 3)
                of any size as an array or a tensor. Also an array or tensor (N, H, W, 3) of several. They are resized
                as in training.
            batch: pictures at a time.

        Raises:
            UserError: none of these, or a file that is no image.
        """
        rows = self._each(pictures)
        return self._vectors(rows, batch)

    def _vectors(self, rows: Sequence[Picture], batch: int) -> Vectors:
        size = (self.interface.height, self.interface.width)
        starts = range(0, len(rows), batch)
        batches = (np.stack([pixels_of(row, *size) for row in rows[start : start + batch]]) for start in starts)
        found = list(self.network.stream(batches))
        return np.concatenate(found) if found else np.empty((0, self.interface.embedding), np.float32)

    @staticmethod
    def _each(pictures: Picture | Sequence[Picture]) -> Sequence[Picture]:
        if isinstance(pictures, str | Path | Image.Image):
            return [pictures]
        if isinstance(pictures, np.ndarray | Tensor):
            return [pictures] if pictures.ndim == 3 else list(pictures)
        return list(pictures)


def pixels_of(picture: Picture, height: int, width: int) -> Pixels:
    """uint8 (height, width, 3) of anything that is a picture.

    Raises:
        UserError: it is none.
    """
    if isinstance(picture, str | Path):
        return read_pixels(Path(picture), height, width)
    if not isinstance(picture, Image.Image):
        array = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            found = (
                f"{array.dtype} of shape {tuple(array.shape)}"
                if isinstance(array, np.ndarray)
                else type(picture).__name__
            )
            raise UserError(
                f"picture: found {found}, allowed: a path, a Pillow image, uint8 RGB pixels of shape (H, W, 3)"
            )
        if 0 in array.shape:
            raise UserError(f"picture: found no pixels, of shape {tuple(array.shape)}")
        picture = Image.fromarray(array)
    try:
        rgb, _ = upright(picture)
    except Exception as error:  # a damaged file raises one of many types
        raise UserError(f"picture: cannot be read ({str(error) or type(error).__name__})") from error
    return np.asarray(rgb if rgb.size == (width, height) else rgb.resize((width, height), Image.Resampling.BILINEAR))


class TorchNetwork:
    """A network on a CPU or a GPU.

    Args:
        source: where it came from, for messages and galleries.
    """

    def __init__(self, net: Exportable, interface: Interface, source: Path, device: torch.device) -> None:
        self.interface, self.source, self.device = interface, source, device
        self.net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def of_run(path: Path, device: Device, space: str | None) -> TorchNetwork:
        """The network of a retraining."""
        run = load_run(path, device, space)
        net = Exportable(run.network, run.config.distance, run.config.flip_average)
        return TorchNetwork(net, run_interface(run), path, pick_device(device))

    @torch.inference_mode()
    def stream(self, batches: Iterator[Pixels]) -> Iterator[Vectors]:
        waiting: Tensor | None = None
        for pixels in batches:
            on_host = torch.from_numpy(pixels)
            if self.device.type == "cuda":
                on_host = on_host.pin_memory()
            found = self.net(normalise(on_host.to(self.device, non_blocking=True)))
            if waiting is not None:  # fetched while the next one is being computed
                yield waiting.float().cpu().numpy()
            waiting = found
        if waiting is not None:
            yield waiting.float().cpu().numpy()
