"""Fixed backbones by name, as descriptions with an attention cell after each of their four stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torchvision.models._utils import _make_divisible

from dnas.errors import UserError
from dnas.nn.chain import Chain, Skip
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.mobilenet import MobileNetConv, MobileNetStage
from dnas.nn.resnet import ResNetStage, ResNetStem
from dnas.nn.vit import ClassToken, PatchTokens, TransformerStage
from dnas.space.spec import OneOf, Spec

Attention = Callable[[int], Spec]
"""Stage number (1 to 4) -> the cell that goes after it."""


def no_attention(stage: int) -> Spec:
    return Skip()


def resnet(
    blocks: tuple[int, int, int, int], bottleneck: bool, width: float, small: bool, attention: Attention
) -> Chain:
    """A ResNet with last stride 1. `width` scales every channel count, `small` keeps the stem's resolution."""
    base = max(8, round(64 * width))
    parts: list[Spec] = [ResNetStem(base, small)]
    strides = (1, 2, 2, 1) if not small else (2, 2, 2, 1)
    for stage, (count, stride) in enumerate(zip(blocks, strides, strict=True), start=1):
        layer = ResNetStage(stage, base * 2 ** (stage - 1), count, stride, bottleneck)
        parts.append(Chain((layer, attention(stage)), name=f"stage {stage}"))
    return Chain(tuple(parts))


def mobilenet_v2(width: float, small: bool, attention: Attention) -> Chain:
    """MobileNetV2 with last stride 1. `small`: stride 1 in the stem, for small images."""

    def scaled(channels: int) -> int:
        return int(_make_divisible(channels * width, 8))

    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))
    groups: list[list[Spec]] = []
    index = 1
    for expand, channels, blocks, stride in rows:
        layer = MobileNetStage(index, scaled(channels), blocks, stride, expand)
        index += blocks
        if stride > 1 or not groups:  # a stage: what shares one resolution; the first row joins the first stage
            groups.append([layer])
        else:
            groups[-1].append(layer)
    merged = [groups[0] + groups[1], groups[2], groups[3][:2], groups[3][2:]]
    stem = MobileNetConv(scaled(32), 3, 1 if small else 2)
    stages = [Chain((*group, attention(stage)), name=f"stage {stage}") for stage, group in enumerate(merged, start=1)]
    last = MobileNetConv(scaled(1280) if width > 1 else 1280, kernel=1, index=index)
    return Chain((stem, *stages, last))


def vit(width: int, depth: int, heads: int, patch: int, scale: float, small: bool, attention: Attention) -> Chain:
    """A vision transformer in four stages. `small`: half the patch size, for small images.

    Its stages take `none` or `dcs` (inside their blocks); other cells have no place between tokens.
    """
    size = patch // 2 if small else patch
    channels = max(heads, round(width * scale / heads) * heads)

    def blocks(stage: int, cell: Spec) -> Spec:
        if isinstance(cell, OneOf):
            return OneOf(cell.key, {name: blocks(stage, option) for name, option in cell.options.items()})
        if not isinstance(cell, Skip | DCSAttention):
            raise UserError(f"attention: found '{cell.label}', a vision transformer's stage {stage} allows: none, dcs")
        return TransformerStage((stage - 1) * depth // 4, depth // 4, heads, isinstance(cell, DCSAttention))

    stages = [Chain((blocks(stage, attention(stage)),), name=f"stage {stage}") for stage in range(1, 5)]
    return Chain((PatchTokens(channels, size, size), *stages, ClassToken()))


BACKBONES: Mapping[str, Callable[[float, bool, Attention], Chain]] = {
    "resnet18": lambda width, small, attention: resnet((2, 2, 2, 2), False, width, small, attention),
    "resnet50": lambda width, small, attention: resnet((3, 4, 6, 3), True, width, small, attention),
    "mobilenet_v2": mobilenet_v2,
    "vit_b_16": lambda width, small, attention: vit(768, 12, 12, 16, width, small, attention),
    "vit_s_16": lambda width, small, attention: vit(384, 12, 6, 16, width, small, attention),
    "vit_tiny_16": lambda width, small, attention: vit(192, 4, 3, 16, width, small, attention),
}


def backbone(name: str, width: float = 1.0, small: bool = False, attention: Attention = no_attention) -> Chain:
    """The description of a fixed backbone.

    Args:
        name: a key of `BACKBONES`.
        width: factor on every channel count (1 is the published network, and the only one weights exist for).
        small: keep the stem's resolution, for images of about 64 pixels.
        attention: which cell goes after each stage.
    """
    if name not in BACKBONES:
        raise UserError(f"backbone: found '{name}', allowed: {', '.join(BACKBONES)}")
    if not 0 < width <= 4:
        raise UserError(f"backbone_width: found {width}, allowed: above 0, at most 4")
    return BACKBONES[name](width, small, attention)
