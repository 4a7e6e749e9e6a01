"""From a matplotlib figure to a file, and to the text of an SVG that can stand in a page."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dnas.draw.glyphs import missing_glyphs
from dnas.draw.style import INK, style
from dnas.errors import UserError
from dnas.run.files import replace_file

FORMATS = (".svg", ".png", ".pdf")


def check_format(file: Path) -> None:
    """Refuse a file that cannot be drawn, before anything is computed for it.

    Raises:
        UserError: another file ending.
    """
    if file.suffix not in FORMATS:
        raise UserError(f"{file}: cannot draw '{file.suffix}', allowed: {', '.join(FORMATS)}")


def save(figure: Figure, file: Path) -> None:
    """Write a figure as .svg, .png or .pdf, and forget it."""
    check_format(file)
    with style(), missing_glyphs():
        replace_file(file, lambda stream: figure.savefig(stream, format=file.suffix[1:]))
    plt.close(figure)


def as_svg(figure: Figure, name: str) -> str:
    """A figure as an <svg> element with ids of its own; its ink is the colour of the text around it. Forgets it."""
    with style() as settings, missing_glyphs():
        settings["svg.hashsalt"] = name  # two figures of one page must not share ids
        settings["svg.fonttype"] = "none"  # text stays text: small, and can be searched
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return re.sub(INK, "currentColor", svg_element(stream.getvalue(), name), flags=re.IGNORECASE)


def svg_element(text: str, name: str) -> str:
    """The <svg> element of a file alone, as wide as there is room, its ids beginning with `name`."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], count=1, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    end = text.index(">")
    opening, rest = text[:end], text[end:]
    sized = re.search(r'width="([\d.]+)pt"', opening)
    width = f' style="width: 100%; max-width: {float(sized[1]) * 4 / 3:.0f}px; height: auto"' if sized else ""
    opening = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", opening)
    return f'{opening}{width} focusable="false" aria-hidden="true"{rest}'


def as_png(figure: Figure) -> str:
    """A figure as the data address of a PNG, for pictures with photographs in them. Forgets it."""
    stream = io.BytesIO()
    with style(), missing_glyphs():
        figure.savefig(stream, format="png", dpi=110)
    plt.close(figure)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
