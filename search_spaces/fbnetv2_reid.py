"""`fbnetv2_reid`: the paper's DNAS backbone, FBNetV2-Large style (arXiv 2004.05565), attention after each stage.

fbnetv2_reid             which attention after each of 4 stages, and one width a stage
fbnetv2_reid_dcs, _ca    the paper's: that cell after each stage, one width a stage, 4 * 4 * 7 * 13 = 1,456 networks
fbnetv2_reid_ops         as fbnetv2_reid, with a width for every 3 blocks and kernel and expansion of every block
tiny_reid (_dcs, _ca)    the same for images of about 64 pixels: 3 stages of 2 blocks, kernels and expansions open
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dnas.nn.attention import attention, site
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.inverted_residual import InvertedResidual
from dnas.space.holes import Width
from dnas.space.spec import OneOf, Space, Spec


@dataclass(frozen=True)
class Row:
    """One stage: how many blocks, the stride of the first, the widths to choose from."""

    blocks: int
    stride: int
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A size of the space.

    Args:
        before: what comes before the first stage.
        rows: the stages.
        head: channels of the embedding.
        kernels, expansions: of a block; a choice where there are several.
        group: blocks that share one width (0: all of a stage).
    """

    before: tuple[Spec, ...]
    rows: tuple[Row, ...]
    head: int
    kernels: tuple[int, ...] = (3,)
    expansions: tuple[int, ...] = (6,)
    group: int = 0

    def block(self, key: str, width: Width, stride: int, residual: bool) -> Spec:
        options: dict[str, Spec] = {
            f"k{kernel}e{expansion}": InvertedResidual(width, kernel, expansion, stride, residual)
            for kernel in self.kernels
            for expansion in self.expansions
        }
        return OneOf(key, options) if len(options) > 1 else next(iter(options.values()))

    def blocks(self, stage: str, row: Row) -> Iterator[Spec]:
        """The blocks of a stage. A block has a residual where input and output share one width and resolution."""
        group = self.group or row.blocks
        for b in range(row.blocks):
            width = Width(f"{stage}.width" + (f"{b // group + 1}" if self.group else ""), row.widths)
            yield self.block(f"{stage}.block{b + 1}", width, row.stride if b == 0 else 1, residual=b % group > 0)

    def stage(self, number: int, row: Row, cells: tuple[str, ...]) -> Chain:
        """Blocks, then attention: open if there are several cells."""
        name = f"stage{number}"
        last = site(f"{name}.attention", cells) if len(cells) > 1 else attention(cells[0])
        return Chain((*self.blocks(name, row), last), name=name, stage=number)

    def spec(self, cells: tuple[str, ...]) -> Chain:
        stages = (self.stage(number, row, cells) for number, row in enumerate(self.rows, start=1))
        return Chain((*self.before, *stages, ConvNormAct(self.head, kernel=1)))


LARGE = Plan(
    before=(ConvNormAct(16, kernel=3, stride=2), InvertedResidual(16, kernel=3, expand=1, residual=True)),
    rows=(
        Row(3, 2, (28, 24, 20, 16)),
        Row(12, 2, (40, 32, 24, 16)),
        Row(21, 2, tuple(range(128, 72, -8))),
        Row(12, 1, tuple(range(216, 112, -8))),  # last stride 1, as Re-ID networks have it
    ),
    head=1984,
)
LARGE_OPS = Plan(LARGE.before, LARGE.rows, LARGE.head, kernels=(3, 5), expansions=(3, 6), group=3)
TINY = Plan(
    before=(ConvNormAct(16, kernel=3, stride=2),),
    rows=(Row(2, 2, (16, 24, 32)), Row(2, 2, (32, 48, 64)), Row(2, 1, (64, 96, 128))),
    head=256,
    kernels=(3, 5),
    expansions=(2, 4),
)
SITE = ("none", "dcs", "se", "eca", "cbam_channel", "channel", "non_local")


def fbnetv2_reid(name: str, cells: tuple[str, ...] = SITE, plan: Plan = LARGE) -> Space:
    """The space with one of `cells` after each stage."""
    height, width = (256, 128) if plan.head == LARGE.head else (128, 64)
    return Space(name, plan.spec(cells), height, width, f"inverted residuals; attention: {', '.join(cells)}")


def tiny_reid(name: str = "tiny_reid", cells: tuple[str, ...] = ("none", "dcs", "se")) -> Space:
    """The space for small images."""
    return fbnetv2_reid(name, cells, TINY)
