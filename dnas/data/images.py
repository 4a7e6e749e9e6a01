"""Decode once, keep as uint8: every later epoch works on tensors.

Shapes: N images, B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dnas.data.market import Split
from dnas.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Channel statistics of ImageNet, that pretrained weights expect."""


@dataclass(frozen=True)
class Images:
    """Decoded images of a split: pixels (N, 3, H, W) uint8, labels 0..C-1, identities and cameras."""

    pixels: Tensor
    labels: Tensor
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def identities(self) -> int:
        return int(self.labels.max()) + 1

    def subset(self, keep_N: Tensor) -> Images:
        """The images where `keep_N` is true, relabelled."""
        kept = keep_N.numpy()
        labels = torch.unique(self.labels[keep_N], return_inverse=True)[1]
        return Images(self.pixels[keep_N], labels, self.pids[kept], self.camids[kept])

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """All images in order, normalised, in batches for inference."""
        for start in range(0, len(self), size):
            yield normalise(self.pixels[start : start + size].to(device, non_blocking=True))


def joined(first: Images, second: Images) -> Images:
    """Two sets of images as one, with labels over the identities of both."""
    pids = np.concatenate([first.pids, second.pids])
    labels = torch.from_numpy(np.unique(pids, return_inverse=True)[1].astype(np.int64))
    return Images(torch.cat([first.pixels, second.pixels]), labels, pids, np.concatenate([first.camids, second.camids]))


def decode(split: Split, height: int, width: int) -> Images:
    """Decode and resize (bilinear, antialiased) every image of a split, in parallel.

    Raises:
        UserError: an image that cannot be read, by name.
    """
    pixels = np.empty((len(split), height, width, 3), np.uint8)

    def one(index: int) -> None:
        pixels[index] = _read(split.files[index], height, width)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(split))))
    labels = np.unique(split.pids, return_inverse=True)[1]
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Images(tensor, torch.from_numpy(labels.astype(np.int64)), split.pids, split.camids)


def _read(file: Path, height: int, width: int) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as picture:
            if picture.mode.startswith("I"):  # 16 bits: scaled, where Pillow would clip at 255
                picture = Image.fromarray((np.asarray(picture, np.uint32) // 257).clip(0, 255).astype(np.uint8))
            rgb = picture.convert("RGB")
            if rgb.size != (width, height):
                rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(rgb)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: cannot be read as an image ({error})") from error


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 with ImageNet's statistics, channels last in memory."""
    mean, std = _statistics(pixels.device)
    return ((pixels.float() - mean) / std).contiguous(memory_format=torch.channels_last)


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD for pixels of 0 to 255, once per device: making them anew would wait for it."""
    mean, std = (torch.tensor(values).mul(255).view(3, 1, 1) for values in (MEAN, STD))
    return mean.to(device), std.to(device)
