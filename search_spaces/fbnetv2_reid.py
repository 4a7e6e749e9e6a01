"""`fbnetv2_reid`: the paper's DNAS backbone, FBNetV2-Large style (arXiv 2004.05565), attention after each of 4 stages.

One width per stage, 4 * 4 * 7 * 13 = 1,456 networks; last stride 1, as Re-ID networks have it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnas.nn.attention import attention
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.inverted_residual import InvertedResidual
from dnas.space.holes import Width
from dnas.space.spec import Space, Spec


@dataclass(frozen=True)
class Row:
    """One stage: how many blocks, the stride of the first, the widths to choose from (most, least, step)."""

    blocks: int
    stride: int
    widths: range


ROWS = (
    Row(3, 2, range(28, 12, -4)),
    Row(12, 2, range(40, 8, -8)),
    Row(21, 2, range(128, 72, -8)),
    Row(12, 1, range(216, 112, -8)),
)


def fbnetv2_reid(cell: str, name: str) -> Space:
    """The space with attention `cell` after each stage."""
    parts: list[Spec] = [ConvNormAct(16, kernel=3, stride=2), InvertedResidual(16, kernel=3, expand=1, residual=True)]
    for number, row in enumerate(ROWS, start=1):
        width = Width(f"stage{number}.width", tuple(row.widths))
        first = InvertedResidual(width, kernel=3, expand=6, stride=row.stride)
        rest = (InvertedResidual(width, kernel=3, expand=6, residual=True),) * (row.blocks - 1)
        parts.append(Chain((first, *rest, attention(cell)), name=f"stage{number}"))
    parts.append(ConvNormAct(1984, kernel=1))
    return Space(name, Chain(tuple(parts)), 256, 128, f"the paper's backbone, {cell} after each stage")
