"""Batch-hard triplet loss (Hermans et al., arXiv 1703.07737), dense: no index lists, so no wait for the device.

Equal to pytorch-metric-learning's `BatchHardMiner` with `TripletMarginLoss`, which is its oracle in the tests.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def batch_hard_triplet(feature_BD: Tensor, labels_B: Tensor, margin: float, soft: bool = False) -> Tensor:
    """relu(hardest positive - hardest negative + margin), averaged over the anchors where it is not zero.

    Args:
        feature_BD: features; their L2-normalised Euclidean distances are compared.
        labels_B: identities. An anchor without a positive or without a negative does not count.
        soft: softplus instead of relu and margin, averaged over all anchors that count.
    """
    unit_BD = F.normalize(feature_BD, dim=1)
    distance_BB = torch.cdist(unit_BD, unit_BD, compute_mode="donot_use_mm_for_euclid_dist")
    same_BB = labels_B[:, None] == labels_B
    positive_BB = same_BB & ~torch.eye(len(labels_B), dtype=torch.bool, device=labels_B.device)
    farthest_B = distance_BB.masked_fill(~positive_BB, -torch.inf).amax(1)
    nearest_B = distance_BB.masked_fill(same_BB, torch.inf).amin(1)
    if soft:
        counts_B = positive_BB.any(1) & ~same_BB.all(1)
        gap_B = (farthest_B - nearest_B).masked_fill(~counts_B, -torch.inf)
        return F.softplus(gap_B).sum() / counts_B.sum().clamp(min=1)
    # without a positive or negative the difference is -inf: relu makes it zero, and its gradient too
    loss_B = F.relu(farthest_B - nearest_B + margin)
    return loss_B.sum() / (loss_B > 0).sum().clamp(min=1)
