"""Searching for people who may not be in the gallery: found, and false alarms, at a threshold of the similarity.

Every query plays both parts: with its person's pictures in the gallery, and without them (the identification rates of
ISO/IEC 19795-1: false positives FPIR, true positives TPIR at rank 1). Shapes: Q queries, G gallery, D embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnas.errors import UserError
from dnas.eval.embed import Distance
from dnas.eval.ranking import Ids
from dnas.eval.threshold import between

ALARMS = (0.1, 0.01)
"""Shares of false alarms to say what is found at."""


@dataclass(frozen=True)
class OpenSet:
    """One threshold.

    Args:
        threshold: similarity (cosine, or minus the euclidean distance) from which on the best match counts.
        measured: the threshold was measured before, on other people; else it is taken from these queries.
        false_alarms: share of queries without their person in the gallery whose best match counts all the same.
        found: share of queries whose best match counts, and is the right person.
    """

    threshold: float
    measured: bool
    false_alarms: float
    found: float


def best_similarities(
    query_QD: Tensor, gallery_GD: Tensor, query_ids: Ids, gallery_ids: Ids, distance: Distance, chunk: int = 256
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Similarity (Q) of the best picture of the query's person that counts, and of the best of anybody else.

    Queries without a picture of their person that counts are left out.
    """
    device = gallery_GD.device
    pid_G, source_G = (torch.from_numpy(np.ascontiguousarray(ids)).to(device) for ids in gallery_ids)
    own, other = [], []
    for start in range(0, len(query_QD), chunk):
        part = slice(start, start + chunk)
        pid, source = (torch.from_numpy(np.ascontiguousarray(ids[part])).to(device)[:, None] for ids in query_ids)
        near_QG = query_QD[part] @ gallery_GD.T if distance == "cosine" else -torch.cdist(query_QD[part], gallery_GD)
        same_QG = pid == pid_G
        own.append(near_QG.masked_fill(~(same_QG & (source != source_G)), -torch.inf).amax(1).float().cpu())
        other.append(near_QG.masked_fill(same_QG, -torch.inf).amax(1).float().cpu())
    own_Q, other_Q = torch.cat(own).numpy(), torch.cat(other).numpy()
    kept = np.isfinite(own_Q) & np.isfinite(other_Q)
    return own_Q[kept], other_Q[kept]


def open_set(own_Q: NDArray[np.float32], other_Q: NDArray[np.float32], measured: float | None = None) -> list[OpenSet]:
    """What is found at thresholds for ALARMS (those for which there are queries enough), and at one measured before.

    Raises:
        UserError: fewer than two queries have their person and somebody else in the gallery.
    """
    if len(own_Q) < 2:
        raise UserError(f"open set: found {len(own_Q)} queries with a match, allowed: 2 or more")
    falling = -np.sort(-other_Q)
    counts = [math.floor(share * len(falling)) for share in ALARMS]
    values = [(between(falling, count), False) for count in counts if count]
    values += [] if measured is None else [(measured, True)]
    return [
        OpenSet(value, was, float((other_Q >= value).mean()), float(((own_Q >= value) & (own_Q > other_Q)).mean()))
        for value, was in values
    ]
