"""Settings of a retraining."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dnas.errors import UserError, check_range
from dnas.eval.embed import Distance
from dnas.task.config import JobConfig


@dataclass(frozen=True)
class RetrainConfig(JobConfig):
    """Train a searched or a fixed network, then evaluate it once on query and gallery.

    Args:
        data: data set (docs/data.md): a folder or CSV manifest; several with commas between, to train on all of them.
        out: run folder to write.
        task: what the network is for: `reid` (find the same identity again) or `classify` (say which class).
        test_on: another data set to take query and gallery from.
        genotype: genotype file or search run folder of a searched network.
        backbone: name of a fixed network. With `genotype` too: the attention that was found, on this backbone.
        space: the space of the genotype, if it is a file of your own.
        attention: cell after each stage of a fixed backbone, a name in dnas/nn/attention.py (none, dcs, se, ...), or
            four with commas between, one a stage.
        backbone_width: factor on the channel counts of a fixed backbone.
        backbone_small: keep the stem's resolution, for images of about 64 pixels.
        backbone_stride: of a vision transformer's patches, below their size where they overlap; 0: their size.
        inherit: start from the weights that the searched network had in its supernet (`genotype`: the search's folder).
            What is held out is then what the search held out, whatever the seed: the weights have seen the rest.
        weights: what to start from: a state dict file of published weights for a fixed backbone, or the name of
            torchvision's (`DEFAULT`) or `timm`; or the folder of a retraining, whose network gets a new classifier
            (which network need not be said then); without it training starts from scratch.
        weights_grid: rows x columns of the patches that a file's vision transformer saw (16x8), where it is no square.
        cameras: what a query may be matched with, held out or tested: images of `other` cameras, or any but its own
            (`ignore`); `auto` is `other` where the data say which camera took an image.
        seed: of everything random.
        holdout: share of the training identities to leave out and to evaluate on as well.
        eval_every: epochs between looks at the held-out identities (0: never; needs holdout).
        test: evaluate on query and gallery at the end; false while settings are still being chosen.
        distance: cosine of the embeddings, or euclidean.
        flip_average: embed every image and its mirror image, and take the mean.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    test_on: str | None = None
    genotype: str | None = None
    backbone: str | None = None
    space: str | None = None
    inherit: bool = False
    attention: str = "none"
    backbone_width: float = 1.0
    backbone_small: bool = False
    backbone_stride: int = 0
    weights: str | None = None
    weights_grid: str | None = None
    test: bool = True
    distance: Distance = "cosine"
    flip_average: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.genotype is None and self.backbone is None and self.weights is None:
            raise UserError("retrain: give --genotype FILE or --backbone NAME, or both: found attention on a backbone")
        if self.backbone is None and self.attention != "none":
            raise UserError("retrain: --attention is for a fixed --backbone")
        if self.genotype is not None and self.backbone is not None and self.attention != "none":
            raise UserError("retrain: --attention and --genotype: give one, both say which attention the backbone has")
        if self.inherit and self.weights is not None:
            raise UserError("retrain: --weights and --inherit: give one, both say what to start from")
        if self.inherit and (self.genotype is None or self.backbone is not None):
            raise UserError("retrain: --inherit needs --genotype and the folder of its search, and no --backbone")
        check_range(self, "", 0, math.inf, "backbone_stride")
