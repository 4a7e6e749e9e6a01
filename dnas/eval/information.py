"""The information bottleneck of a trained network on a set of images: exact plug-in values and both bounds.

Everything is divided by log C, so that sets of different size compare (method, section 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import Images
from dnas.loss.ibb import UNIFORM_SHARE, information_bottleneck, log_assignment

INPUT_NUMBERS = 2048
"""Input images are reduced to at most this many numbers."""


def probe(embedding_ND: Tensor, images: Images, beta: float) -> dict[str, float]:
    """IB, its two parts, both bounds (with H(X~) and on the same scale) and the perplexity of phi.

    Args:
        embedding_ND: unit vectors of the images, in their order.
        images: the images, with labels 0..C-1; centroids are those of this very set.
        beta: inverse temperature of the features' assignment.
    """
    if bool((images.pids == 0).any()):  # distractors are no identity
        keep = torch.from_numpy(images.pids != 0)
        images, embedding_ND = images.subset(keep), embedding_ND[keep.to(embedding_ND.device)]
    labels_N = images.labels
    features_ND = embedding_ND.cpu().double()
    log_f_NC = log_assignment(features_ND, class_means(features_ND, labels_N), beta)
    log_x_NC = _input_assignment(images)
    phi_f_NC, phi_x_NC = log_f_NC.exp(), log_x_NC.exp()
    c = log_f_NC.shape[1]
    values = {name: float(v) for name, v in information_bottleneck(phi_f_NC, phi_x_NC, labels_N).items()}
    counts_C = torch.bincount(labels_N, minlength=c)
    q_CC = torch.zeros(c, c, dtype=torch.float64).index_add_(0, labels_N, phi_f_NC) / counts_C[:, None]
    log_q_NC = torch.lerp(q_CC, torch.full_like(q_CC, 1 / c), UNIFORM_SHARE).log()[labels_N]
    entropy_f, entropy_x = (float(torch.special.entr(phi).sum(1).mean()) for phi in (phi_f_NC, phi_x_NC))
    cross = float(-(phi_f_NC * log_q_NC).sum(1).mean())
    marginal_x = float(torch.special.entr(phi_x_NC.mean(0)).sum())
    values["tight bound"] = cross - entropy_f
    values["paper bound + H(X)"] = cross - entropy_x + marginal_x
    scaled = {name: value / math.log(max(c, 2)) for name, value in values.items()}
    return scaled | {
        "perplexity": math.exp(entropy_f),
        "H(F)": float(torch.special.entr(phi_f_NC.mean(0)).sum()) / math.log(max(c, 2)),
        "identities": float(c),
    }


def class_means(features_ND: Tensor, labels_N: Tensor) -> Tensor:
    """Normalised mean feature of every identity (C, D)."""
    c = int(labels_N.max()) + 1
    return F.normalize(features_ND.new_zeros(c, features_ND.shape[1]).index_add_(0, labels_N, features_ND), dim=1)


def _input_assignment(images: Images) -> Tensor:
    """log phi(X): reduced, flattened, normalised inputs against their class means.

    beta_x is the one at which the mean perplexity is sqrt(C), half way (in bits) between one-hot and
    uniform; it depends on the images alone, so it is the same for every network.
    """
    h, w = images.pixels.shape[1:3]
    factor = min(1.0, math.sqrt(INPUT_NUMBERS / (3 * h * w)))
    size = (max(1, int(h * factor)), max(1, int(w * factor)))
    batches = images.batches(256, torch.device("cpu"))
    parts = [F.adaptive_avg_pool2d(batch, size).flatten(1) for batch in batches]
    inputs_ND = F.normalize(torch.cat(parts), dim=1).double()
    means_CD = class_means(inputs_ND, images.labels)
    similarity_NC = inputs_ND @ means_CD.T  # once: ||x - c||^2 = 2 - 2 x.c
    target = 0.5 * math.log(means_CD.shape[0])
    low, high = 1e-3, 1e6
    for _ in range(40):
        middle = math.sqrt(low * high)
        entropy = float(torch.special.entr((2 * middle * similarity_NC).softmax(1)).sum(1).mean())
        low, high = (middle, high) if entropy > target else (low, middle)
    return (2 * math.sqrt(low * high) * similarity_NC).log_softmax(1)
