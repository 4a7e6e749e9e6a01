"""Training augmentation in batches on tensors: flip, pad and crop, colour jitter, random erasing.

The bag of tricks of Luo et al., arXiv 1903.07071. Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import standardise
from dnas.errors import check_range

GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""


@dataclass(frozen=True)
class InputConfig:
    """What the network sees.

    Args:
        height: pixels; 0 is what the space or backbone is meant for.
        width: pixels; 0 is what the space or backbone is meant for.
        flip: probability of a horizontal flip. Set it to 0 where a mirrored image is another identity (letters).
        pad: pixels of zero padding on each side before a random crop back to size.
        jitter: brightness, contrast and saturation change by factors of 1 - jitter to 1 + jitter.
        erase: probability of random erasing (Zhong et al., arXiv 1708.04896).
    """

    height: int = 0
    width: int = 0
    flip: float = 0.5
    pad: int = 4
    jitter: float = 0.0
    erase: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, "input.", 0, 1, "flip", "jitter", "erase")
        check_range(self, "input.", 0, 4096, "height", "width", "pad")


def draw(count: int, generator: torch.Generator) -> Tensor:
    """The random numbers (B, 11) of `count` images: 8 for place and erasing, 3 for colours."""
    return torch.cat([torch.rand(count, 8, generator=generator), torch.rand(count, 3, generator=generator)], 1)


def augment(pixels: Tensor, config: InputConfig, draw_BR: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> normalised float32 (B, 3, H, W), channels last in memory.

    Args:
        draw_BR: what `draw` gave; the result is a function of it and the pixels alone.
    """
    draw_BR = draw_BR.to(pixels.device, non_blocking=True)
    images = _cropped(pixels, config.pad, draw_BR) if config.pad else pixels
    if config.flip > 0:
        images = torch.where((draw_BR[:, 0] < config.flip)[:, None, None, None], images.flip(2), images)
    images = images.to(torch.float32, memory_format=torch.contiguous_format)
    if config.jitter > 0:
        images = _jittered(images, 1 + config.jitter * (2 * draw_BR[:, 8:] - 1))
    images = standardise(images)
    if config.erase > 0:
        images = _erased(images, draw_BR, config.erase)
    return images.permute(0, 3, 1, 2)


def _cropped(pixels: Tensor, pad: int, draw_BR: Tensor) -> Tensor:
    """Windows of the padded images, one for each: rows are copied whole, wherever they begin."""
    b, h, w, c = pixels.shape
    high, wide = h + 2 * pad, w + 2 * pad
    padded = F.pad(pixels, (0, 0, pad, pad, pad, pad))
    offset_B2 = (draw_BR[:, 1:3] * (2 * pad + 1)).long()
    image_B1 = torch.arange(b, device=pixels.device)[:, None]
    row_BH = image_B1 * high + offset_B2[:, :1] + torch.arange(h, device=pixels.device)
    starts = (row_BH * wide + offset_B2[:, 1:]) * c
    rows = padded.as_strided((padded.numel() - w * c + 1, w * c), (1, 1))  # every place where a row could begin
    return rows[starts.view(-1)].view(b, h, w, c)


def _jittered(images: Tensor, factor_B3: Tensor) -> Tensor:
    """Brightness, contrast, saturation, in this order, as torchvision's `adjust_*` do it; 0 to 255."""
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in factor_B3.unbind(1))
    weights = images.new_tensor(GREY)
    images = images.mul(brightness).clamp_(0, 255)
    mean = (images @ weights).mean((1, 2))[:, None, None, None]
    images = torch.lerp(mean, images, contrast).clamp_(0, 255)
    return torch.lerp((images @ weights)[..., None], images, saturation).clamp_(0, 255)


def _erased(images: Tensor, draw_BR: Tensor, probability: float) -> Tensor:
    """Blank (to the mean) a rectangle of 2 to 40 % of the area and aspect ratio 0.3 to 1/0.3, in place."""
    b, h, w, c = images.shape
    area_B1 = (0.02 + 0.38 * draw_BR[:, 4:5]) * h * w
    ratio_B1 = torch.exp((2 * draw_BR[:, 5:6] - 1) * math.log(1 / 0.3))
    high_B1 = (area_B1 * ratio_B1).sqrt().round().clamp(1, h)
    wide_B1 = (area_B1 / ratio_B1).sqrt().round().clamp(1, w)
    top_B1 = (draw_BR[:, 6:7] * (h - high_B1 + 1)).floor()
    left_B1 = (draw_BR[:, 7:8] * (w - wide_B1 + 1)).floor()
    row_H, col_W = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    in_rows_BH = (row_H >= top_B1) & (row_H < top_B1 + high_B1) & (draw_BR[:, 3:4] < probability)
    in_cols_BW = (col_W >= left_B1) & (col_W < left_B1 + wide_B1)
    blank_BHW = in_rows_BH[:, :, None] & in_cols_BW.repeat_interleave(c, 1)[:, None, :]
    images.view(b, h, w * c).masked_fill_(blank_BHW, 0.0)
    return images
