"""The training loss of every model, fixed or searched: identity + triplet + eta(t) * IBB.

Source: arXiv 2505.08961 (the bound), arXiv 1903.07071 (identity and triplet on both sides of a BNNeck).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.errors import UserError, check_range
from dnas.loss.centre import Centres
from dnas.loss.ibb import ClassStatistics, assignment_entropies, bound
from dnas.loss.site_bound import SiteBounds
from dnas.loss.triplet import batch_hard_triplet
from dnas.nn.network import Output
from dnas.run.distributed import all_gather

IBBOn = Literal["embedding", "attention", "both"]


@dataclass(frozen=True)
class LossConfig:
    """Weights and settings of the loss terms.

    Args:
        smoothing: label smoothing of the identity loss.
        triplet: batch-hard triplet loss on the L2-normalised features before the neck, with a `hard` or `soft` margin;
            none set: hard where identities are told apart, none where classes are.
        margin: of the triplet loss, in Euclidean distance.
        centre: weight of the centre loss on the features before the neck (Wen et al., ECCV 2016); 0 turns it off.
        circle: weight of the circle loss on the embedding (Sun et al., arXiv 2002.10857); 0 turns it off.
        eta: weight of the information bottleneck bound; 0 turns it off.
        eta_warmup: share of the epochs before which eta is 0: features are not yet meaningful.
        bound: `paper`, or `tight` (a tighter bound, with a gradient in both terms).
        beta: inverse temperature of the soft assignment; none: log(identities).
        refresh: class statistics by a pass at the start of each `epoch`, or by moving averages (`ema`).
        assign: clusters of soft assignment, for very many identities (needs refresh epoch); none: one per identity.
        ibb_on: what the bound acts on: the `embedding`; the output of every stage's `attention`, or of the stage itself
            where it has none (`dnas.loss.site_bound`); or `both`.
    """

    smoothing: float = 0.1
    triplet: Literal["hard", "soft", "none"] | None = None
    margin: float = 0.3
    centre: float = 0.0
    circle: float = 0.0
    eta: float = 0.3
    eta_warmup: float = 0.3
    bound: Literal["paper", "tight"] = "paper"
    beta: float | None = None
    refresh: Literal["epoch", "ema"] = "ema"
    assign: int | None = None
    ibb_on: IBBOn = "embedding"

    def __post_init__(self) -> None:
        check_range(self, "loss.", 0, 0.99, "smoothing")
        check_range(self, "loss.", 0, 2, "margin")
        check_range(self, "loss.", 0, 1e6, "eta", "centre", "circle")
        check_range(self, "loss.", 0, 1, "eta_warmup")
        if self.assign is not None and (self.assign < 2 or self.refresh != "epoch"):
            found = f"{self.assign} with refresh {self.refresh}"
            raise UserError(f"loss.assign: found {found}, allowed: 2 or more clusters, with refresh epoch")
        if self.beta is not None and not self.beta > 0:
            raise UserError(f"loss.beta: found {self.beta}, allowed: above 0")

    @property
    def on_stages(self) -> bool:
        """Whether there is a bound on what the stages put out."""
        return self.eta > 0 and self.ibb_on != "embedding"


class Objective(nn.Module):
    """Loss terms of a batch; owns the class statistics of the bound.

    Args:
        identities: C.
        dim: D of the embedding.
        sites: channels of every stage's output, where the bound acts on attention.

    Raises:
        UserError: the bound is to act on attention, and there are no stages.
    """

    def __init__(self, config: LossConfig, identities: int, dim: int, sites: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        on_embedding = config.eta > 0 and config.ibb_on != "attention"
        self.statistics = ClassStatistics(identities, dim, config.beta, config.assign, used=on_embedding)
        self.on_embedding = on_embedding
        self.sites: SiteBounds | None = None
        if config.on_stages:
            if not sites:
                raise UserError(f"loss.ibb_on: found {config.ibb_on}, this network has no stages; allowed: embedding")
            self.sites = SiteBounds(identities, sites, config.beta)
        self.centres = Centres(identities, dim) if config.centre > 0 else None
        self.circle: nn.Module | None = None
        if config.circle > 0:
            from pytorch_metric_learning.losses import CircleLoss  # slow to import

            self.circle = CircleLoss(m=0.25, gamma=128)  # of the paper, for person re-identification
        self.watched: dict[str, Tensor] = {}
        """Perplexity of phi and entropy H(F~) of the last batch that had the bound."""

    def eta(self, progress: float) -> float:
        """Weight of the bound at `progress` (0 to 1) of the training."""
        return self.config.eta if progress >= self.config.eta_warmup else 0.0

    def forward(self, output: Output, labels_B: Tensor, progress: float, follow: bool = True) -> dict[str, Tensor]:
        """Terms by name, weighted, of the batches of all ranks together; their sum is the loss.

        Args:
            follow: whether moving averages follow this batch (not for batches that train logits).
        """
        config = self.config
        feature_BD, embedding_BD, logits_BC = (all_gather(wide(part)) for part in output[:3])
        labels_B = all_gather(labels_B)
        terms = {"id": F.cross_entropy(logits_BC, labels_B, label_smoothing=config.smoothing)}
        if config.triplet != "none":
            soft = config.triplet == "soft"
            terms["triplet"] = batch_hard_triplet(feature_BD, labels_B, config.margin, soft)
        if self.circle is not None:
            terms["circle"] = config.circle * self.circle(embedding_BD, labels_B)
        if self.centres is not None:
            terms["centre"] = config.centre * self.centres(feature_BD, labels_B, follow)
        if config.eta > 0:
            with torch.autocast(labels_B.device.type, enabled=False):
                terms |= self._bottleneck(embedding_BD, labels_B, self.eta(progress), follow)
                terms |= self._on_sites(output.stages, labels_B, self.eta(progress), follow)
        return terms

    def _bottleneck(self, embedding_BD: Tensor, labels_B: Tensor, eta: float, follow: bool) -> dict[str, Tensor]:
        if not self.on_embedding:
            return {}
        if self.config.refresh == "ema" and follow:
            self.statistics.update(embedding_BD.detach(), labels_B)
        if eta == 0:
            return {}
        log_phi_BK = self.statistics.log_assignment(embedding_BD)
        self.watched = assignment_entropies(log_phi_BK.detach())
        log_q_BK = self.statistics.log_q_rows(labels_B)
        return {"ibb": eta * bound(log_phi_BK, log_q_BK, tight=self.config.bound == "tight")}

    def _on_sites(self, pooled: Sequence[Tensor], labels_B: Tensor, eta: float, follow: bool) -> dict[str, Tensor]:
        if self.sites is None:
            return {}
        gathered = [all_gather(wide(part)) for part in pooled]
        found = self.sites(gathered, labels_B, self.config.bound == "tight", follow, asleep=eta == 0)
        return {} if found is None else {"ibb_attention": eta * found}


def wide(tensor: Tensor) -> Tensor:
    """At least single precision, whatever the network computed in."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
