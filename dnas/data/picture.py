"""One image file: which pixels it gives, and which files are no image that can be used.

Grey, palette, CMYK and transparent pictures become RGB (transparency is dropped), 16 bits are scaled to 8, of an
animation the first frame counts, and a photograph is turned as its EXIF orientation says, as every viewer shows it.
Refused: what Pillow cannot decode to the last row, pixels of floating point or of 32 bits (their range is unknown) and
pictures of more pixels than MOST.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from dnas.errors import UserError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
"""Told by the content, whatever the name says; others (EPS) could start a program."""
MOST = Image.MAX_IMAGE_PIXELS or 89_478_485
"""Pixels; more is a decompression bomb, or no picture of a person."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright (EXIF 2.32, tag 274); 1 is upright."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # they are refused below
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged tags; what cannot be decoded is an error
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its words go to whoever asks for them, not to stderr


class BadImage(UserError):
    """An image that cannot be used; `reason` in a few words; `passing` where the file itself may be good."""

    def __init__(self, file: Path, reason: str, passing: bool = False) -> None:
        super().__init__(f"{file}: cannot be read as an image ({reason})")
        self.file, self.reason, self.passing = file, reason, passing


def read_upright(file: Path) -> tuple[Image.Image, bool]:
    """The whole picture, decoded; and whether it had to be turned to be upright.

    Raises:
        BadImage: it cannot be read.
    """
    try:
        with Image.open(file, formats=FORMATS) as picture:
            return upright(picture)
    except Exception as error:  # a damaged file raises one of many types
        reason = (str(error) or type(error).__name__).replace(f" {str(file)!r}", "")
        passing = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        raise BadImage(file, reason, passing) from error


def upright(picture: Image.Image) -> tuple[Image.Image, bool]:
    """`read_upright` of an open picture. What is returned says nothing of its orientation any more.

    Raises:
        ValueError: its pixels cannot be used; or another error, where it is damaged.
    """
    width, height = picture.size
    if width * height > MOST:
        raise ValueError(f"{width} x {height} pixels, allowed: up to {MOST // 10**6} million")
    if picture.mode == "F":
        raise ValueError("floating-point pixels, allowed: whole numbers of 1, 8 or 16 bits")
    turned = False
    if isinstance(picture, TiffImageFile):
        if picture.mode == "I" and max(picture.tag_v2[BITSPERSAMPLE]) > 16:
            raise ValueError("pixels of 32 bits, allowed: whole numbers of 1, 8 or 16 bits")
        turned = _orientation(picture) in TURNS  # by load(): afterwards it has no orientation
    picture.load()
    rgb, turn = _as_rgb(picture), TURNS.get(_orientation(picture))
    rgb.info.clear()
    return (rgb, turned) if turn is None else (rgb.transpose(turn), True)


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits: scaled, where Pillow would clip at 255
        grey = (np.asarray(picture, np.uint32) // 257).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    return picture.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    """EXIF's; upright where the picture says nothing that can be read: a viewer shows it as it is, too."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF raises one of many types
        return 1
    return found if isinstance(found, int) else 1


def read_rgb(file: Path) -> Image.Image:
    """The whole picture, decoded and upright.

    Raises:
        BadImage: it cannot be read.
    """
    return read_upright(file)[0]


def read_pixels(file: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Pixels (H, W, 3), resized (bilinear, antialiased) if need be.

    Raises:
        BadImage: it cannot be read.
    """
    rgb = read_rgb(file)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(rgb)
