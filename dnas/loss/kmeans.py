"""k-means on the unit sphere (Lloyd's algorithm), for soft assignment to clusters instead of identities.

Shapes: N points, D dimensions, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.run import distributed
from dnas.run.distributed import all_reduce_sum


def kmeans(points_ND: Tensor, clusters: int, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Unit centroids (K, D) of unit points. Several ranks get what one would, of all points.

    Starts from random points (drawn with replacement only if there are fewer than K); a cluster that loses all
    its points keeps its centroid.

    Args:
        points_ND: of R ranks, rank r passes points r, r + R, r + 2 R and so on.
        generator: on the CPU, the same on every rank.
    """
    n = int(distributed.sum_numbers([float(len(points_ND))])[0])
    first_K = torch.randperm(n, generator=generator)[:clusters]
    if n < clusters:
        first_K = torch.cat([first_K, torch.randint(n, (clusters - n,), generator=generator)])
    place_K, own_K = first_K // distributed.world(), first_K % distributed.world() == distributed.rank()
    centroids_KD = points_ND.new_zeros(clusters, points_ND.shape[1])
    centroids_KD[own_K.to(points_ND.device)] = points_ND[place_K[own_K].to(points_ND.device)]
    all_reduce_sum(centroids_KD)
    for _ in range(iterations):
        nearest_N = (points_ND @ centroids_KD.T).argmax(1)
        sums_KD = torch.zeros_like(centroids_KD).index_add_(0, nearest_N, points_ND)
        counts_K = torch.bincount(nearest_N, minlength=clusters).to(points_ND.dtype)
        all_reduce_sum(sums_KD, counts_K)
        centroids_KD = torch.where(counts_K[:, None] > 0, F.normalize(sums_KD, dim=1), centroids_KD)
    return centroids_KD
