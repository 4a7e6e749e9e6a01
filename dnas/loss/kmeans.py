"""k-means on the unit sphere (Lloyd's algorithm), for soft assignment to clusters instead of identities.

Shapes: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.run.distributed import all_reduce_sum, broadcast


def kmeans(points_ND: Tensor, clusters: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Unit centroids (K, D) of unit points. With several ranks every rank passes its points and gets the same.

    Starts from random points of rank 0 (drawn with replacement only if there are fewer than K); a cluster
    that loses all its points keeps its centroid.

    Args:
        generator: on the CPU.
    """
    n = len(points_ND)
    first = torch.randperm(n, generator=generator)[:clusters]
    if n < clusters:
        first = torch.cat([first, torch.randint(n, (clusters - n,), generator=generator)])
    centroids_KD = points_ND[first.to(points_ND.device)].clone()
    broadcast(centroids_KD)
    for _ in range(iterations):
        nearest_N = (points_ND @ centroids_KD.T).argmax(1)
        sums_KD = torch.zeros_like(centroids_KD).index_add_(0, nearest_N, points_ND)
        counts_K = torch.bincount(nearest_N, minlength=clusters).to(points_ND.dtype)
        all_reduce_sum(sums_KD, counts_K)
        centroids_KD = torch.where(counts_K[:, None] > 0, F.normalize(sums_KD, dim=1), centroids_KD)
    return centroids_KD
