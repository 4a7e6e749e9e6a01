"""Training augmentation in batches on tensors: flip, pad and crop, colour jitter, random erasing.

The bag of tricks of Luo et al., arXiv 1903.07071. Shapes: B batch, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from dnas.data.images import Batch, mean_colour, normalise
from dnas.data.usable import OnBadImage
from dnas.errors import check_range

AT_ONCE = 16
"""Images at a time on a CPU."""
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
        on_bad_image: what a file that is no image (docs/data.md) does: `stop` the run with its name, or `skip`: it is
            left out, of training and of evaluation, and named in data.json.
    """

    height: int = 0
    width: int = 0
    flip: float = 0.5
    pad: int = 4
    jitter: float = 0.0
    erase: float = 0.5
    on_bad_image: OnBadImage = "stop"

    def __post_init__(self) -> None:
        check_range(self, "input.", 0, 1, "flip", "jitter", "erase")
        check_range(self, "input.", 0, 4096, "height", "width", "pad")


def draw(count: int, generator: torch.Generator) -> Tensor:
    """The random numbers (B, 11) of `count` images: 8 for place and erasing, 3 for colours."""
    return torch.cat([torch.rand(count, 8, generator=generator), torch.rand(count, 3, generator=generator)], 1)


@dataclass(frozen=True)
class Plan:
    """What is done to each image of a batch: rows and columns of pixels as factors of zero and one, in bytes.

    Columns are counted in bytes (X = W * 3). Products of bytes are much faster than masks of booleans.
    """

    flip_B: Tensor
    shift_BH: Tensor
    rows_BH1: Tensor
    cols_B1X: Tensor
    blank_rows_BH1: Tensor
    blank_cols_B1X: Tensor
    colour_B3: Tensor

    @staticmethod
    def of(config: InputConfig, draw_BR: Tensor, shape: tuple[int, int, int], device: torch.device) -> Plan:
        """From the random numbers of the images. `flip_B` stays on the CPU."""
        h, w, c = shape
        flip_B, draw_BR, pad = draw_BR[:, 0] < config.flip, draw_BR.to(device, non_blocking=True), config.pad
        row_H, col_X = (torch.arange(n, device=device) for n in (h, w * c))
        down_B1, right_B1 = ((draw_BR[:, k : k + 1] * (2 * pad + 1)).long() - pad for k in (1, 2))
        area_B1 = (0.02 + 0.38 * draw_BR[:, 4:5]) * h * w
        ratio_B1 = torch.exp((2 * draw_BR[:, 5:6] - 1) * math.log(1 / 0.3))
        high_B1 = (area_B1 * ratio_B1).sqrt().round().clamp(1, h)
        wide_B1 = (area_B1 / ratio_B1).sqrt().round().clamp(1, w)
        top_B1 = (draw_BR[:, 6:7] * (h - high_B1 + 1)).floor()
        left_B1 = (draw_BR[:, 7:8] * (w - wide_B1 + 1)).floor()
        blank_rows_BH = _between(row_H, top_B1, top_B1 + high_B1) * (draw_BR[:, 3:4] < config.erase)
        return Plan(
            flip_B,
            ((row_H + down_B1 + pad) * w + right_B1 + pad) * c,
            _between(row_H + down_B1, 0, h)[:, :, None],
            _between(col_X + c * right_B1, 0, w * c)[:, None, :],
            blank_rows_BH[:, :, None],
            _between(col_X, c * left_B1, c * (left_B1 + wide_B1))[:, None, :],
            1 + config.jitter * (2 * draw_BR[:, 8:] - 1),
        )

    def part(self, rows: slice) -> Plan:
        return Plan(*(getattr(self, f.name)[rows] for f in fields(self)))


def augment(batch: Batch, config: InputConfig, draw_BR: Tensor) -> Tensor:
    """Images -> normalised float32 (B, 3, H, W), channels last in memory.

    Mirrored, then a random window of the padded image; colours; and a rectangle of 2 to 40 % of the area and aspect
    ratio 0.3 to 1/0.3 blanked to the mean colour.

    Args:
        draw_BR: what `draw` gave, on the CPU; the result is a function of it and the pixels alone.
    """
    return Augmenter(config)(batch, draw_BR)


class Augmenter:
    """`augment` for one batch after the other, in memory of its own: a result holds until the next one.

    Everything but the last step works on numbers of one byte; on a CPU a few images at a time, as its cache holds, and
    in memory that is kept, because getting new memory takes as long as filling it.
    """

    def __init__(self, config: InputConfig) -> None:
        self.config = config
        self.kept: dict[str, Tensor] = {}

    def __call__(self, batch: Batch, draw_BR: Tensor) -> Tensor:
        (h, w, c), count, device = batch.pixels.shape[1:], len(batch.rows), batch.pixels.device
        plan = Plan.of(self.config, draw_BR, (h, w, c), device)
        out = self._memory("out", (count, h, w, c), torch.float32, device)
        size = AT_ONCE if device.type == "cpu" else max(count, 1)
        for start in range(0, count, size):
            part = slice(start, start + size)
            normalise(self._augmented(batch.pixels, batch.rows[part], plan.part(part)), out[part])
        return out.permute(0, 3, 1, 2)

    def _memory(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor with any content; the memory of the last one of this name where there is enough."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        count = math.prod(shape)
        if name not in self.kept or len(self.kept[name]) < count:
            self.kept[name] = torch.empty(count, dtype=dtype)
        return self.kept[name][:count].view(shape)

    def _augmented(self, pixels: Tensor, rows_B: Tensor, plan: Plan) -> Tensor:
        """A few images as uint8 (B, H, W, 3)."""
        config, (h, w, c) = self.config, pixels.shape[1:]
        images = self._moved(pixels, rows_B, plan)
        if config.pad:
            images.mul_(plan.rows_BH1).mul_(plan.cols_B1X)
        if config.jitter > 0:
            images = _jittered(images.view(-1, h, w, c).float(), plan.colour_B3).view(-1, h, w * c)
        if config.erase > 0:
            kept_BHX = self._memory("blank", tuple(images.shape), torch.uint8, pixels.device)
            torch.bitwise_or(1 - plan.blank_rows_BH1, 1 - plan.blank_cols_B1X, out=kept_BHX)
            colour_B1X = plan.blank_cols_B1X * mean_colour(pixels.device, w)
            images.mul_(kept_BHX).addcmul_(plan.blank_rows_BH1, colour_B1X)
        return images.view(-1, h, w, c)

    def _moved(self, pixels: Tensor, rows_B: Tensor, plan: Plan) -> Tensor:
        """Mirrored and moved images (B, H, X); outside the picture is whatever lies there in memory.

        Rows are copied whole, from wherever they begin in memory.
        """
        b, (h, w, c), device = len(rows_B), pixels.shape[1:], pixels.device
        straight, mirrored = (~plan.flip_B).nonzero()[:, 0], plan.flip_B.nonzero()[:, 0]
        order_B = torch.cat([straight, mirrored])  # mirrored ones last: one block to turn round
        place_B = torch.empty_like(order_B).scatter_(0, order_B, torch.arange(b)).to(device, non_blocking=True)
        margin, size = self.config.pad * (w + 1) * c, b * h * w * c  # a window may begin before the first image
        memory = self._memory("memory", (2 * margin + size,), torch.uint8, device)
        images = memory[margin : margin + size].view(b, h, w, c)
        torch.index_select(pixels, 0, rows_B[order_B.to(device, non_blocking=True)], out=images)
        if len(mirrored):
            images[len(straight) :] = images[len(straight) :].flip(2)
        windows = memory.as_strided((len(memory) - w * c + 1, w * c), (1, 1))  # every place where a row could begin
        moved = self._memory("moved", (b * h, w * c), torch.uint8, device)
        starts_BH = place_B[:, None] * (h * w * c) + plan.shift_BH
        torch.index_select(windows, 0, starts_BH.view(-1), out=moved)
        return moved.view(b, h, w * c)


def _between(values: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """1 where low <= value < high, else 0, as bytes."""
    return ((values >= low) & (values < high)).byte()


@lru_cache
def _grey(device: torch.device) -> Tensor:
    """GREY, once per device: making it anew would wait for it."""
    return torch.tensor(GREY).to(device)


def _jittered(images: Tensor, factor_B3: Tensor) -> Tensor:
    """Brightness, contrast, saturation, in this order, as torchvision's `adjust_*` do it; 0 to 255, back to uint8."""
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in factor_B3.unbind(1))
    weights = _grey(images.device)
    images = images.mul(brightness).clamp_(0, 255)
    mean = (images @ weights).mean((1, 2))[:, None, None, None]
    images = torch.lerp(mean, images, contrast).clamp_(0, 255)
    return torch.lerp((images @ weights)[..., None], images, saturation).clamp_(0, 255).round_().to(torch.uint8)
