"""One image file: which pixels it gives, and which files are no image that can be used.

Grey, palette, CMYK and transparent pictures become RGB (transparency is dropped), 16 bits are scaled to 8, of an
animation the first frame counts. Refused: what Pillow cannot decode to the last row, floating-point pixels (their range
is unknown) and pictures of more pixels than MOST.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dnas.errors import UserError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
"""Told by the content, whatever the name says; others (EPS) could start a program."""
MOST = Image.MAX_IMAGE_PIXELS or 89_478_485
"""Pixels; more is a decompression bomb, or no picture of a person."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # they are refused below


class BadImage(UserError):
    """An image that cannot be used; `reason` in a few words; `passing` where the file itself may be good."""

    def __init__(self, file: Path, reason: str, passing: bool = False) -> None:
        super().__init__(f"{file}: cannot be read as an image ({reason})")
        self.file, self.reason, self.passing = file, reason, passing


def read_rgb(file: Path) -> Image.Image:
    """The whole picture, decoded.

    Raises:
        BadImage: it cannot be.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MOST:
                raise BadImage(file, f"{width} x {height} pixels, allowed: up to {MOST // 10**6} million")
            if picture.mode == "F":
                raise BadImage(file, "floating-point pixels, allowed: whole numbers of 1, 8 or 16 bits")
            if picture.mode.startswith("I"):  # 16 bits: scaled, where Pillow would clip at 255
                grey = (np.asarray(picture, np.uint32) // 257).clip(0, 255).astype(np.uint8)
                return Image.fromarray(grey).convert("RGB")
            rgb: Image.Image = picture.convert("RGB")
            return rgb
    except (OSError, ValueError, SyntaxError, MemoryError, EOFError, Image.DecompressionBombError) as error:
        reason = (str(error) or type(error).__name__).replace(f" {str(file)!r}", "")
        passing = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        raise BadImage(file, reason, passing) from error


def read_pixels(file: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Pixels (H, W, 3), resized (bilinear, antialiased) if need be.

    Raises:
        BadImage: it cannot be read.
    """
    rgb = read_rgb(file)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb)
