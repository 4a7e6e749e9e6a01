"""Retrieval quality: CMC, mAP and mINP with the protocol of Market-1501.

Gallery images with the query's identity and camera are removed. Ties count wrong before right, so the
numbers do not depend on the order of the gallery. Shapes: Q queries, G gallery, M matches of a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnas.errors import UserError


@dataclass(frozen=True)
class Ranking:
    """Per-query results. Queries without a match in another camera have NaN and do not count."""

    ap: NDArray[np.float64]
    first_match: NDArray[np.float64]
    inp: NDArray[np.float64]

    @property
    def valid(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.ap)

    def metrics(self) -> dict[str, float]:
        """mAP, mINP and Rank-1/5/10 as shares (0 to 1) of the valid queries.

        Raises:
            UserError: no query has a match in another camera.
        """
        if not self.valid.any():
            raise UserError("data: no query has a match in another camera")
        first = self.first_match[self.valid]
        found = {"mAP": float(self.ap[self.valid].mean()), "mINP": float(self.inp[self.valid].mean())}
        return found | {f"rank{k}": float((first <= k).mean()) for k in (1, 5, 10)}


def rank(
    query_QD: Tensor,
    gallery_GD: Tensor,
    query_ids: tuple[NDArray[np.int64], NDArray[np.int64]],
    gallery_ids: tuple[NDArray[np.int64], NDArray[np.int64]],
    chunk: int = 256,
) -> Ranking:
    """Rank the gallery by cosine distance for every query.

    Args:
        query_QD, gallery_GD: unit vectors.
        query_ids, gallery_ids: (pids, camids) of each image.
        chunk: queries at a time; memory is about chunk x G floats.

    Raises:
        UserError: the embedding is not finite.
    """
    if not bool(query_QD.isfinite().all() & gallery_GD.isfinite().all()):
        raise UserError("the embedding is not finite: the training has diverged (a smaller optim.lr may help)")
    device = gallery_GD.device
    g_pid, g_cam = (torch.as_tensor(ids, device=device) for ids in gallery_ids)
    q_pid, q_cam = (torch.as_tensor(ids, device=device) for ids in query_ids)
    parts = []
    for start in range(0, len(query_QD), chunk):
        rows = slice(start, start + chunk)
        distance_QG = 1 - query_QD[rows] @ gallery_GD.T
        same_QG = q_pid[rows, None] == g_pid[None]
        removed_QG = same_QG & (q_cam[rows, None] == g_cam[None])
        parts.append(_rank_rows(distance_QG, same_QG & ~removed_QG, removed_QG))
    ap, first, inp = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return Ranking(ap, first, inp)


def _rank_rows(distance_QG: Tensor, match_QG: Tensor, removed_QG: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """AP, rank of the first match and INP of every row, by looking the matches up in sorted distances."""
    infinity = float("inf")
    sorted_QG = distance_QG.masked_fill(removed_QG, infinity).sort(1).values
    count_Q = match_QG.sum(1)
    most = max(int(count_Q.max()), 1)
    matches_QM = distance_QG.masked_fill(~match_QG, infinity).topk(most, dim=1, largest=False, sorted=True).values
    real_QM = torch.arange(most, device=count_Q.device) < count_Q[:, None]
    # right and all images at most as far as match j; the difference is how many wrong ones come before it
    right_QM = torch.searchsorted(matches_QM.contiguous(), matches_QM.contiguous(), right=True)
    right_QM = right_QM.minimum(count_Q[:, None])
    wrong_QM = torch.searchsorted(sorted_QG, matches_QM.contiguous(), right=True) - right_QM
    position_QM = torch.arange(1, most + 1, device=count_Q.device) + wrong_QM
    precision_QM = torch.arange(1, most + 1, device=count_Q.device, dtype=torch.float64) / position_QM
    nan = torch.tensor(torch.nan, dtype=torch.float64, device=count_Q.device)
    ap_Q = (precision_QM * real_QM).sum(1) / count_Q
    last_Q = position_QM.gather(1, (count_Q - 1).clamp(min=0)[:, None])[:, 0]
    found_Q = count_Q > 0
    first_Q = position_QM[:, 0].double()
    return ap_Q.where(found_Q, nan), first_Q.where(found_Q, nan), (count_Q.double() / last_Q).where(found_Q, nan)
