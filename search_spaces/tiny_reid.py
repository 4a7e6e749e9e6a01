"""`tiny_reid`: a small space for small images. Three stages of inverted residuals, each with

one width for the stage, kernel and expansion of each of its blocks, and an attention site after it.
"""

from __future__ import annotations

from dnas.nn.attention import site
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


def stage(name: str, widths: tuple[int, ...], stride: int) -> Chain:
    """Two blocks, the first with the stride, then the attention site."""
    width = Width(f"{name}.width", widths)
    first = OneOf(f"{name}.block1", _options(width, stride, residual=False))
    second = OneOf(f"{name}.block2", _options(width, 1, residual=True))
    return Chain((first, second, site(f"{name}.attention", ("none", "dcs", "se"))), name=name)


def tiny_reid() -> Space:
    parts = (
        ConvNormAct(16, kernel=3, stride=2),
        stage("stage1", (16, 24, 32), stride=2),
        stage("stage2", (32, 48, 64), stride=2),
        stage("stage3", (64, 96, 128), stride=1),
        ConvNormAct(256, kernel=1),
    )
    return Space(
        "tiny_reid", Chain(parts), 128, 64, "three stages of inverted residuals, for images of about 64 pixels"
    )
