"""The bound on what attention puts out: class statistics of every site that stay small with very many identities.

A site is the end of a stage: the output of the stage's attention cell (its sum with what entered it, or its gated map;
the stage's own output where there is no attention, which is the control), averaged over the positions.

Of an identity only its centroid is kept, of a feature projected to at most `DIM` numbers by a fixed random matrix
(Johnson-Lindenstrauss: distances stay within some percent). The bound holds for every Q; here it is the soft assignment
of the identity's own centroid,

    Q(a | y) = softmax_a(-beta ||C_y - C_a||^2)        instead of the table of C x C numbers,

the best one up to the spread within an identity. Ten thousand identities at four sites: 41 MB, less the narrow ones.
Shapes: B batch, C identities, D channels of a site, P = min(D, DIM).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.loss.ibb import UNIFORM_SHARE, bound, default_beta, log_assignment, unit

DIM = 256
"""Numbers that a feature is projected to."""


class SiteStatistics(nn.Module):
    """Centroids of one site (C x P) by moving averages over the training batches, bias-corrected.

    Args:
        identities: C.
        dim: D.
        beta: inverse temperature; none is `default_beta(C)`.
        momentum: of the moving averages, per visit of an identity.
        number: of the site, which the random matrix depends on.
    """

    def __init__(
        self, identities: int, dim: int, beta: float | None = None, momentum: float = 0.9, number: int = 0
    ) -> None:
        super().__init__()
        self.beta, self.momentum = default_beta(identities) if beta is None else beta, momentum
        self.register_buffer("centroid_sum_CP", torch.zeros(identities, min(dim, DIM)))
        self.register_buffer("known_C", torch.zeros(identities, dtype=torch.bool))
        self.centroid_sum_CP: Tensor
        self.known_C: Tensor
        self.project_DP: Tensor | None
        projection = None
        if dim > DIM:
            projection = torch.randn(dim, DIM, generator=torch.Generator().manual_seed(number)) * DIM**-0.5
        self.register_buffer("project_DP", projection, persistent=False)  # made again from its number

    def projected(self, pooled_BD: Tensor) -> Tensor:
        """Unit vectors (B, P)."""
        unit_BD = unit(pooled_BD)
        return unit_BD if self.project_DP is None else F.normalize(unit_BD @ self.project_DP.to(unit_BD.dtype), dim=1)

    @torch.no_grad()
    def update(self, unit_BP: Tensor, labels_B: Tensor) -> None:
        """Follow one batch, the global one; no host-device sync."""
        same_BB = (labels_B[:, None] == labels_B).to(unit_BP.dtype)
        mean_BP = same_BB / same_BB.sum(1, keepdim=True) @ unit_BP  # images of one identity write the same row
        keep = self.momentum
        kept_BP = keep * self.centroid_sum_CP[labels_B] + (1 - keep) * mean_BP.to(self.centroid_sum_CP.dtype)
        self.centroid_sum_CP[labels_B] = kept_BP
        self.known_C[labels_B] = True

    def bound(self, unit_BP: Tensor, labels_B: Tensor, tight: bool) -> Tensor:
        """The bound of a batch, in nats, its gradient to the features alone."""
        centroids_CP = F.normalize(self.centroid_sum_CP, dim=1)
        log_phi_BC = log_assignment(unit_BP, centroids_CP, self.beta, self.known_C)
        q_BC = log_assignment(centroids_CP[labels_B], centroids_CP, self.beta, self.known_C).exp()
        log_q_BC = torch.lerp(q_BC, torch.full_like(q_BC, 1 / q_BC.shape[1]), UNIFORM_SHARE).log()
        return bound(log_phi_BC, log_q_BC.to(log_phi_BC.dtype), tight)


class SiteBounds(nn.ModuleList):
    """The mean of the bound over the sites of a network.

    Args:
        widths: channels of each site.
    """

    def __init__(self, identities: int, widths: Sequence[int], beta: float | None) -> None:
        super().__init__(SiteStatistics(identities, dim, beta, number=n) for n, dim in enumerate(widths))

    def forward(
        self, pooled: Sequence[Tensor], labels_B: Tensor, tight: bool, follow: bool, asleep: bool
    ) -> Tensor | None:
        """Follow the batch, then the bound; none while the term is asleep.

        Args:
            pooled: the output (B, D) of every site.
        """
        found = []
        for site, pooled_BD in zip(self, pooled, strict=True):
            assert isinstance(site, SiteStatistics)
            unit_BP = site.projected(pooled_BD)
            if follow:
                site.update(unit_BP.detach(), labels_B)
            if not asleep:
                found.append(site.bound(unit_BP, labels_B, tight))
        return torch.stack(found).mean() if found else None
