"""The preparation of pixels as a part of the network: what the training's reader does, in operations that export.

Pillow's antialiased bilinear resizing is a triangle filter along each axis, with whole numbers between the two
(Pillow, libImaging/Resample.c): two matrix products, whose matrices depend on the size of the pictures alone.

Shapes: B batch, H W of the pictures, U V (height, width) of the network's input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dnas.imagenet import MEAN, STD


class Prepare(nn.Module):
    """uint8 RGB (B, H, W, 3) of any one size -> float32 (B, 3, U, V), resized and normalised."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD))
        self.register_buffer("factor", (1 / (255 * std)).float())
        self.register_buffer("summand", (-mean / std).float())
        self.factor: Tensor
        self.summand: Tensor

    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        h, w = pixels_BHWC.shape[1:3]
        rows_BHCW = pixels_BHWC.permute(0, 1, 3, 2).float()
        narrow_BHCV = whole(rows_BHCW @ triangles(w, self.width, rows_BHCW.device).T)
        columns_BHX = narrow_BHCV.flatten(2)
        resized_BUX = whole(triangles(h, self.height, rows_BHCW.device) @ columns_BHX)
        resized_BCUV = resized_BUX.unflatten(2, (3, self.width)).permute(0, 2, 1, 3)
        prepared: Tensor = resized_BCUV * self.factor + self.summand
        return prepared


def triangles(size: int, out: int, device: torch.device) -> Tensor:
    """Weights (out, size) of every pixel in every pixel of the resized axis; rows sum to one."""
    scale = size / out
    centre_O1 = (torch.arange(out, device=device, dtype=torch.float32)[:, None] + 0.5) * scale
    offset_OS = torch.arange(size, device=device, dtype=torch.float32) + 0.5 - centre_O1
    reach = torch.ones((), device=device).mul(scale).clamp(min=1)  # of the filter: wider where the picture shrinks
    weight_OS = (1 - offset_OS.abs() / reach).clamp(min=0)
    return weight_OS / weight_OS.sum(1, keepdim=True)


def whole(values: Tensor) -> Tensor:
    """Rounded to whole numbers of one byte, a half upwards, as Pillow does between its two passes.

    A half is one to a ten-thousandth: sums in another order, in another library, then round the same way.
    """
    return (values + 0.5001).floor().clamp(0, 255)
