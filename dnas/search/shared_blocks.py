"""Options that share their weights: a vision transformer's stage with and without channel selection in its blocks.

One stage with the selection serves both: without it the same blocks attend with all channels. Apart, what is compared
are two separately trained copies of a stage; shared, the selection alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from dnas.nn.vit import TransformerStage, TransformerStageModule
from dnas.search.relaxation import Draw
from dnas.space.holes import Channels
from dnas.space.spec import Builder, OneOf, Spec


def can_share_blocks(options: Mapping[str, Spec]) -> bool:
    """Whether the options are one transformer stage, with one kind of selection or with none."""
    stages = [option for option in options.values() if isinstance(option, TransformerStage)]
    kinds = {stage.kind for stage in stages if stage.select}
    same = {replace(stage, select=False, kind="dcs") for stage in stages}
    return len(stages) == len(options) and len(kinds) == len(same) == 1


class SharedTransformerStage(TransformerStageModule):
    """x (B, C, N, 1) -> what the drawn option makes of it, or the weighted sum of all."""

    def __init__(self, one_of: OneOf, c: Channels, builder: Builder, draw: Draw) -> None:
        stages = [option for option in one_of.options.values() if isinstance(option, TransformerStage)]
        super().__init__(next(stage for stage in stages if stage.select), c, builder)
        self.key, self.draw = one_of.key, draw
        self.selects = [stage.select for stage in stages]

    def forward(self, x: Tensor) -> Tensor:
        return self.draw.combine(self.key, lambda k: self.through(x, self.selects[k]), len(self.selects))
