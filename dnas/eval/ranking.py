"""Retrieval quality: CMC, mAP and mINP with the protocol of Market-1501.

Gallery images with the query's identity and camera (or its own image alone, where cameras are ignored) are removed.
Ties count wrong before right, so the numbers do not depend on the order of the gallery.

The distances of a query are sorted, not the gallery: how many images are nearer than a match is then a search in
sorted numbers, and only images of the query's own identity (a run of the gallery in the order of identities) are
looked at one by one. Shapes: Q queries, G gallery, S images of a query's identity.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnas.errors import UserError

Ids = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Identity and source of every image: its camera, or a number of its own (`dnas.data.protocol`)."""


@dataclass(frozen=True)
class Ranking:
    """Per-query results. Queries without a match have NaN and do not count."""

    ap: NDArray[np.float64]
    first_match: NDArray[np.float64]
    inp: NDArray[np.float64]

    def subset(self, keep_Q: NDArray[np.bool_]) -> Ranking:
        return Ranking(self.ap[keep_Q], self.first_match[keep_Q], self.inp[keep_Q])

    @property
    def valid(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.ap)

    def metrics(self) -> dict[str, float]:
        """mAP, mINP and Rank-1/5/10 as shares (0 to 1) of the valid queries.

        Raises:
            UserError: no query has a match.
        """
        if not self.valid.any():
            raise UserError("data: no query has a match")
        first = self.first_match[self.valid]
        found = {"mAP": float(self.ap[self.valid].mean()), "mINP": float(self.inp[self.valid].mean())}
        return found | {f"rank{k}": float((first <= k).mean()) for k in (1, 5, 10)}


def rank(
    query_QD: Tensor,
    gallery_GD: Tensor,
    query_ids: Ids,
    gallery_ids: Ids,
    distance: Literal["cosine", "euclidean"] = "cosine",
    chunk: int = 256,
) -> Ranking:
    """Rank the gallery for every query.

    Args:
        query_QD, gallery_GD: embeddings; unit vectors for the cosine distance.
        query_ids, gallery_ids: (pids, sources) of each image.
        chunk: queries at a time; memory is a few times chunk x G numbers.

    Raises:
        UserError: the embedding is not finite.
    """
    if not bool(query_QD.isfinite().all() & gallery_GD.isfinite().all()):
        raise UserError("the embedding is not finite: the training has diverged (a smaller optim.lr may help)")

    def rows(part: slice) -> Tensor:
        if distance == "cosine":
            return 1 - query_QD[part] @ gallery_GD.T
        return torch.cdist(query_QD[part], gallery_GD)

    return rank_by(rows, query_ids, gallery_ids, gallery_GD.device, chunk)


def rank_by(
    rows: Callable[[slice], Tensor], query_ids: Ids, gallery_ids: Ids, device: torch.device, chunk: int = 256
) -> Ranking:
    """Rank by any distances.

    Args:
        rows: distances (q, G) of some queries, on `device`.
    """
    order_G = np.argsort(gallery_ids[0], kind="stable")
    g_pid, g_cam = gallery_ids[0][order_G], gallery_ids[1][order_G]
    first, last = (np.searchsorted(g_pid, query_ids[0], side) for side in ("left", "right"))
    parts = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, len(query_ids[0]), chunk):
            part = slice(start, start + chunk)
            most = max(int(np.max((last - first)[part])), 1)
            place_QS = first[part, None] + np.arange(most)
            own_QS = place_QS < last[part, None]
            place_QS = np.minimum(place_QS, len(g_pid) - 1)
            other_QS = own_QS & (g_cam[place_QS] != query_ids[1][part, None])
            place, own, other = (torch.from_numpy(a).to(device) for a in (order_G[place_QS], own_QS, other_QS))
            distance_QG = rows(part)
            parts.append(_measures(_sorted(distance_QG, pool), distance_QG.gather(1, place), own, other))
    ap, found, inp = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return Ranking(ap, found, inp)


def _sorted(distance_QG: Tensor, pool: ThreadPoolExecutor) -> Tensor:
    """Every row in ascending order; on a CPU by numpy, whose sort of plain numbers is vectorised."""
    if distance_QG.device.type != "cpu":
        return distance_QG.sort(1).values
    shares = np.array_split(distance_QG.numpy(), torch.get_num_threads())
    return torch.from_numpy(np.concatenate(list(pool.map(lambda rows: np.sort(rows, axis=1), shares))))


def _measures(sorted_QG: Tensor, near_QS: Tensor, own_QS: Tensor, other_QS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """AP, rank of the first match and INP of every query.

    Args:
        sorted_QG: all distances, sorted.
        near_QS: distances of the images of the query's identity.
        own_QS: which of them are there (rows are padded).
        other_QS: which of them are matches: from another camera.
    """
    infinity = float("inf")
    match_QS = near_QS.masked_fill(~other_QS, infinity).sort(1).values
    same_QS = near_QS.masked_fill(~own_QS, infinity).sort(1).values
    count_Q = other_QS.sum(1)
    step_S = torch.arange(1, match_QS.shape[1] + 1, device=near_QS.device)
    real_QS = step_S <= count_Q[:, None]
    # all images at most as far as match j, less those of the identity itself: the wrong ones that come before it
    nearer_QS = torch.searchsorted(sorted_QG, match_QS, right=True)
    wrong_QS = nearer_QS - torch.searchsorted(same_QS, match_QS, right=True)
    position_QS = step_S + wrong_QS
    precision_QS = step_S.double() / position_QS
    ap_Q = precision_QS.masked_fill(~real_QS, 0).sum(1) / count_Q
    last_Q = position_QS.gather(1, (count_Q - 1).clamp(min=0)[:, None])[:, 0]
    found_Q = count_Q > 0
    nan = torch.tensor(torch.nan, dtype=torch.float64, device=near_QS.device)
    first_Q = position_QS[:, 0].double()
    return ap_Q.where(found_Q, nan), first_Q.where(found_Q, nan), (count_Q.double() / last_Q).where(found_Q, nan)
