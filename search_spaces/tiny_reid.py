"""`tiny_reid`: a small space for small images. Three stages of inverted residuals, each with

one width for the stage, kernel and expansion of each of its blocks, and an attention site after it.
"""

from __future__ import annotations

from dnas.nn.attention import attention, site
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.inverted_residual import InvertedResidual
from dnas.space.holes import Width
from dnas.space.spec import OneOf, Space, Spec


def _options(width: Width, stride: int, residual: bool) -> dict[str, Spec]:
    """An inverted residual whose kernel and expansion are open."""
    return {
        f"k{kernel}e{expand}": InvertedResidual(width, kernel, expand, stride, residual)
        for kernel in (3, 5)
        for expand in (2, 4)
    }


def stage(name: str, widths: tuple[int, ...], stride: int, cells: tuple[str, ...]) -> Chain:
    """Two blocks, the first with the stride, then the attention: open if there are several cells."""
    width = Width(f"{name}.width", widths)
    first = OneOf(f"{name}.block1", _options(width, stride, residual=False))
    second = OneOf(f"{name}.block2", _options(width, 1, residual=True))
    last = site(f"{name}.attention", cells) if len(cells) > 1 else attention(cells[0])
    return Chain((first, second, last), name=name)


def tiny_reid(name: str = "tiny_reid", cells: tuple[str, ...] = ("none", "dcs", "se")) -> Space:
    parts = (
        ConvNormAct(16, kernel=3, stride=2),
        stage("stage1", (16, 24, 32), 2, cells),
        stage("stage2", (32, 48, 64), 2, cells),
        stage("stage3", (64, 96, 128), 1, cells),
        ConvNormAct(256, kernel=1),
    )
    hint = f"three stages of inverted residuals for images of about 64 pixels; attention: {', '.join(cells)}"
    return Space(name, Chain(parts), 128, 64, hint)
