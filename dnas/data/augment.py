"""Training augmentation in batches on tensors: flip, pad and crop, random erasing.

The bag of tricks of Luo et al., arXiv 1903.07071. Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import normalise
from dnas.errors import check_range


@dataclass(frozen=True)
class InputConfig:
    """What the network sees.

    Args:
        height: pixels; 0 is what the space or backbone is meant for.
        width: pixels; 0 is what the space or backbone is meant for.
        flip: probability of a horizontal flip. Set it to 0 where a mirrored image is another identity (letters).
        pad: pixels of zero padding on each side before a random crop back to size.
        erase: probability of random erasing (Zhong et al., arXiv 1708.04896).
    """

    height: int = 0
    width: int = 0
    flip: float = 0.5
    pad: int = 4
    erase: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "input.", 0, 1, "flip", "erase")
        check_range(self, "input.", 0, 4096, "height", "width", "pad")


def augment(pixels: Tensor, config: InputConfig, generator: torch.Generator) -> Tensor:
    """uint8 (B, 3, H, W) -> normalised float32 (B, 3, H, W).

    Args:
        generator: a CPU generator; the result is a function of it and the pixels alone.
    """
    b, _, h, w = pixels.shape
    draw_BR = torch.rand(b, 8, generator=generator).to(
        pixels.device, non_blocking=True
    )  # eight random numbers for each image
    rows_BH = torch.arange(h, device=pixels.device).expand(b, h)
    cols_BW = torch.arange(w, device=pixels.device).expand(b, w)
    cols_BW = torch.where(draw_BR[:, :1] < config.flip, cols_BW.flip(1), cols_BW)
    if config.pad:
        span = 2 * config.pad + 1
        rows_BH = rows_BH + (draw_BR[:, 1:2] * span).long()
        cols_BW = cols_BW + (draw_BR[:, 2:3] * span).long()
        pixels = F.pad(pixels, (config.pad,) * 4)
    batch_B11 = torch.arange(b, device=pixels.device)[:, None, None]
    # advanced indices around a slice put the channel last: (B, H, W, 3), which is channels-last memory
    images = normalise(pixels[batch_B11, :, rows_BH[:, :, None], cols_BW[:, None, :]].permute(0, 3, 1, 2))
    return _erase(images, draw_BR, config.erase) if config.erase > 0 else images


def _erase(images: Tensor, draw_BR: Tensor, probability: float) -> Tensor:
    """Blank (to the mean) a rectangle of 2 to 40 % of the area and aspect ratio 0.3 to 1/0.3."""
    _, _, h, w = images.shape
    area_B1 = (0.02 + 0.38 * draw_BR[:, 4:5]) * h * w
    ratio_B1 = torch.exp((2 * draw_BR[:, 5:6] - 1) * math.log(1 / 0.3))
    high_B1 = (area_B1 * ratio_B1).sqrt().round().clamp(1, h)
    wide_B1 = (area_B1 / ratio_B1).sqrt().round().clamp(1, w)
    top_B1 = (draw_BR[:, 6:7] * (h - high_B1 + 1)).floor()
    left_B1 = (draw_BR[:, 7:8] * (w - wide_B1 + 1)).floor()
    row_H, col_W = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    in_rows_BH = (row_H >= top_B1) & (row_H < top_B1 + high_B1) & (draw_BR[:, 3:4] < probability)
    in_cols_BW = (col_W >= left_B1) & (col_W < left_B1 + wide_B1)
    return images.masked_fill_((in_rows_BH[:, :, None] & in_cols_BW[:, None, :])[:, None], 0.0)
