"""Settings of a retraining."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dnas.data.augment import InputConfig
from dnas.errors import UserError, check_range
from dnas.loss.objective import LossConfig
from dnas.run.device import Device
from dnas.run.schedules import OptimConfig


@dataclass(frozen=True)
class RetrainConfig:
    """Train a searched or a fixed network, then evaluate it once on query and gallery.

    Args:
        data: data set in the layout of Market-1501.
        out: run folder to write.
        genotype: genotype file or search run folder of a searched network.
        backbone: name of a fixed network; give this or `genotype`.
        space: the space of the genotype, if it is a file of your own.
        attention: cell after each stage of a fixed backbone, a name in dnas/nn/attention.py (none, dcs, se, ...).
        backbone_width: factor on the channel counts of a fixed backbone.
        backbone_small: keep the stem's resolution, for images of about 64 pixels.
        inherit: start from the weights that the searched network had in its supernet (`genotype`: the search's folder).
        weights: torchvision state dict for a fixed backbone; without it training starts from scratch.
        seed: of everything random.
        holdout: share of the training identities to leave out and to evaluate on as well.
        eval_every: epochs between looks at the held-out identities (0: never; needs holdout).
        test: evaluate on query and gallery at the end; false while settings are still being chosen.
        device: auto, cpu, cuda or mps.
    """

    data: str
    out: str
    genotype: str | None = None
    backbone: str | None = None
    space: str | None = None
    inherit: bool = False
    attention: str = "none"
    backbone_width: float = 1.0
    backbone_small: bool = False
    weights: str | None = None
    seed: int = 0
    holdout: float = 0.0
    eval_every: int = 0
    test: bool = True
    device: Device = "auto"
    input: InputConfig = field(default_factory=InputConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        if (self.genotype is None) == (self.backbone is None):
            raise UserError("retrain: give one of --genotype FILE and --backbone NAME")
        if self.genotype is not None and (self.attention != "none" or self.weights is not None):
            raise UserError("retrain: --attention and --weights are for a fixed --backbone")
        if self.inherit and self.genotype is None:
            raise UserError("retrain: --inherit needs --genotype and the folder of its search")
        check_range(self, "", 0, 0.999, "holdout")
        check_range(self, "", 0, math.inf, "seed", "eval_every")
