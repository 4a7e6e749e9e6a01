"""Fixed backbones by name, as descriptions with an attention cell after each of their four stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torchvision.models._utils import _make_divisible

from dnas.errors import UserError
from dnas.nn.chain import Chain, Skip
from dnas.nn.mobilenet import MobileNetConv, MobileNetStage
from dnas.nn.osnet import OSNetHead, OSNetStage, OSNetStem
from dnas.nn.resnet import ResNetStage, ResNetStem
from dnas.nn.swin import SwinNorm, SwinPatches, SwinStage
from dnas.nn.vit import ClassToken, PatchTokens, TransformerStage
from dnas.nn.vit_stage import stage_parts
from dnas.space.spec import Spec

STAGES = 4
"""Of every fixed backbone."""
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
        parts.append(Chain((layer, attention(stage)), name=f"stage {stage}", stage=stage))
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
    stages = [
        Chain((*group, attention(stage)), name=f"stage {stage}", stage=stage)
        for stage, group in enumerate(merged, start=1)
    ]
    last = MobileNetConv(scaled(1280) if width > 1 else 1280, kernel=1, index=index)
    return Chain((stem, *stages, last))


def osnet(scale: float, width: float, small: bool, attention: Attention) -> Chain:
    """OSNet: three stages of two blocks, then the 512-dimensional feature. `small`: stride 1 in the stem.

    Its attention sites are the four of the others: after the stem (stage 1) and after each of its stages.
    """
    widths = [max(8, round(channels * scale * width)) for channels in (64, 256, 384, 512)]
    parts: list[Spec] = [Chain((OSNetStem(widths[0], small), attention(1)), name="stage 1", stage=1)]
    for stage in (2, 3, 4):
        layer = OSNetStage(stage, widths[stage - 1], blocks=2, reduce=stage < 4)
        parts.append(Chain((layer, attention(stage)), name=f"stage {stage}", stage=stage))
    return Chain((*parts, OSNetHead(widths[3], max(32, round(512 * min(width, 1.0))))))


def swin(width: int, depths: tuple[int, int, int, int], scale: float, small: bool, attention: Attention) -> Chain:
    """A Swin transformer: heads of 32 channels. `small`: patches of 2x2, for small images."""
    heads = max(1, round(width * scale / 32))
    parts: list[Spec] = [SwinPatches(32 * heads, 2 if small else 4)]
    for stage, depth in enumerate(depths, start=1):
        factor = 2 ** (stage - 1)
        layer = SwinStage(2 * stage - 1, 32 * heads * factor, depth, heads * factor, merge=stage > 1)
        parts.append(Chain((layer, attention(stage)), name=f"stage {stage}", stage=stage))
    return Chain((*parts, SwinNorm()))


def vit(
    width: int, depth: int, heads: int, patch: int, scale: float, small: bool, attention: Attention, stride: int = 0
) -> Chain:
    """A vision transformer in four stages. `small`: half the patch size, for small images.

    `dcs` and `selective` work inside the blocks of a stage, other cells on its patches (`dnas.nn.vit_stage`).

    Args:
        stride: of the patches, below their size where they overlap (TransReID, arXiv 2102.04378); 0: their size.
    """
    size = patch // 2 if small else patch
    channels = max(heads, round(width * scale / heads) * heads)

    stages = []
    for stage in range(1, STAGES + 1):
        blocks = TransformerStage((stage - 1) * depth // STAGES, depth // STAGES, heads)
        parts = stage_parts(blocks, attention(stage), last=stage == STAGES)
        stages.append(Chain(parts, name=f"stage {stage}", stage=stage))
    return Chain((PatchTokens(channels, size, stride or size), *stages, ClassToken()))


VITS: Mapping[str, tuple[int, int, int, int]] = {
    "vit_b_16": (768, 12, 12, 16),
    "vit_s_16": (384, 12, 6, 16),
    "vit_tiny_16": (192, 4, 3, 16),
}
"""Width, depth, heads and patch size."""

BACKBONES: dict[str, Callable[[float, bool, Attention], Chain]] = {
    "resnet18": lambda width, small, attention: resnet((2, 2, 2, 2), False, width, small, attention),
    "resnet50": lambda width, small, attention: resnet((3, 4, 6, 3), True, width, small, attention),
    "mobilenet_v2": mobilenet_v2,
    "osnet_x1_0": lambda width, small, attention: osnet(1.0, width, small, attention),
    "osnet_x0_25": lambda width, small, attention: osnet(0.25, width, small, attention),
    "swin_t": lambda width, small, attention: swin(96, (2, 2, 6, 2), width, small, attention),
    **{name: partial(vit, *plan) for name, plan in VITS.items()},
}


def backbone(
    name: str, width: float = 1.0, small: bool = False, attention: Attention = no_attention, stride: int = 0
) -> Chain:
    """The description of a fixed backbone.

    Args:
        name: a key of `BACKBONES`.
        width: factor on every channel count (1 is the published network, and the only one weights exist for).
        small: keep the stem's resolution, for images of about 64 pixels.
        attention: which cell goes after each stage.
        stride: of a vision transformer's patches, where they overlap; 0: their size.
    """
    if name not in BACKBONES:
        raise UserError(f"backbone: found '{name}', allowed: {', '.join(BACKBONES)}")
    if not 0 < width <= 4:
        raise UserError(f"backbone_width: found {width}, allowed: above 0, at most 4")
    if stride:
        if name not in VITS or not 0 < stride <= VITS[name][3] // (2 if small else 1):
            raise UserError(
                f"backbone_stride: found {stride} with {name}, allowed: at most the patch size of {', '.join(VITS)}"
            )
        return vit(*VITS[name], width, small, attention, stride)
    return BACKBONES[name](width, small, attention)
