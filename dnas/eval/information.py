"""The information bottleneck of a trained network on a set of images: exact plug-in values and both bounds.

Everything is divided by log C, so that sets of different size compare (method, section 1).
Shapes: N images, C identities, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import Images
from dnas.loss.ibb import UNIFORM_SHARE, log_assignment, mutual_information

INPUT_NUMBERS = 2048
"""Input images are reduced to at most this many numbers."""
CHUNK = 1 << 22
"""Numbers of an assignment (N x C) that are computed at a time, in double precision."""


class Probe:
    """One set of images, to be looked at again and again: what depends on the images alone is computed once.

    It keeps phi(X), N x C numbers of 4 bytes; what is computed in a look takes C x C of 8.

    Args:
        images: the images, with labels 0..C-1; distractors (identity 0) are left out.
        beta: inverse temperature of the features' assignment.
    """

    def __init__(self, images: Images, beta: float) -> None:
        self.keep_N = torch.from_numpy(images.pids != 0)
        images = images if bool(self.keep_N.all()) else images.subset(self.keep_N)
        self.beta, self.labels_N, self.identities = beta, images.labels, images.classes
        self.phi_x_NC = _input_assignment(images)

    def __call__(self, embedding_ND: Tensor) -> dict[str, float]:
        """IB, its two parts, both bounds (with H(X~) and on the same scale) and the perplexity of phi.

        Args:
            embedding_ND: unit vectors of all images, in their order; the centroids are those of this very set.
        """
        c, n, labels_N = self.identities, len(self.labels_N), self.labels_N
        features_ND = embedding_ND.cpu()[self.keep_N].double()
        means_CD = class_means(features_ND, labels_N)
        with_x_CC, with_y_CC = (torch.zeros(c, c, dtype=torch.float64) for _ in range(2))  # rows: assigned identity
        marginal_x_C = torch.zeros(c, dtype=torch.float64)
        entropy_f = entropy_x = 0.0
        for rows in _chunks(n, c):
            phi_f_BC, phi_x_BC = (
                log_assignment(features_ND[rows], means_CD, self.beta).exp(),
                self.phi_x_NC[rows].double(),
            )
            with_x_CC.addmm_(phi_f_BC.T, phi_x_BC, alpha=1 / n)
            with_y_CC.T.index_add_(0, labels_N[rows], phi_f_BC, alpha=1 / n)
            marginal_x_C += phi_x_BC.sum(0) / n
            entropy_f += float(torch.special.entr(phi_f_BC).sum()) / n
            entropy_x += float(torch.special.entr(phi_x_BC).sum()) / n
        q_CC = with_y_CC / with_y_CC.sum(0)  # column y: Q(. | y)
        cross = -float((with_y_CC * torch.lerp(q_CC, torch.full_like(q_CC, 1 / c), UNIFORM_SHARE).log()).sum())
        i_x, i_y = (float(mutual_information(joint_CC)) for joint_CC in (with_x_CC, with_y_CC))
        values = {
            "I(F;X)": i_x,
            "I(F;Y)": i_y,
            "IB": i_x - i_y,
            "tight bound": cross - entropy_f,
            "paper bound + H(X)": cross - entropy_x + float(torch.special.entr(marginal_x_C).sum()),
        }
        scale = math.log(max(c, 2))
        return {name: value / scale for name, value in values.items()} | {
            "perplexity": math.exp(entropy_f),
            "H(F)": float(torch.special.entr(with_y_CC.sum(1)).sum()) / scale,
            "identities": float(c),
        }


def probe(embedding_ND: Tensor, images: Images, beta: float) -> dict[str, float]:
    """`Probe` for a set that is looked at once."""
    return Probe(images, beta)(embedding_ND)


def class_means(features_ND: Tensor, labels_N: Tensor) -> Tensor:
    """Normalised mean feature of every identity (C, D)."""
    c = int(labels_N.max()) + 1
    return F.normalize(features_ND.new_zeros(c, features_ND.shape[1]).index_add_(0, labels_N, features_ND), dim=1)


def _input_assignment(images: Images) -> Tensor:
    """phi(X) (N, C): reduced, flattened, normalised inputs against their class means.

    beta_x is the one at which the mean perplexity is sqrt(C), half way (in bits) between one-hot and
    uniform; it depends on the images alone, so it is the same for every network.
    """
    h, w = images.pixels.shape[1:3]
    factor = min(1.0, math.sqrt(INPUT_NUMBERS / (3 * h * w)))
    size = (max(1, int(h * factor)), max(1, int(w * factor)))
    batches = images.batches(256, torch.device("cpu"))
    inputs_ND = F.normalize(torch.cat([F.adaptive_avg_pool2d(batch, size).flatten(1) for batch in batches]), dim=1)
    means_CD = class_means(inputs_ND.double(), images.labels)
    n, c = len(inputs_ND), len(means_CD)
    similarity_NC = torch.empty(n, c, dtype=torch.float64)
    for rows in _chunks(n, c):
        similarity_NC[rows] = inputs_ND[rows].double() @ means_CD.T  # once: ||x - c||^2 = 2 - 2 x.c

    def excess(log_beta: float) -> float:
        """Mean entropy above half of log C; falls with beta."""
        parts = (similarity_NC[rows].mul(2 * math.exp(log_beta)).softmax(1) for rows in _chunks(n, c))
        return sum(float(torch.special.entr(phi_BC).sum()) for phi_BC in parts) / n - 0.5 * math.log(c)

    from scipy.optimize import brentq  # slow to import

    low, high = math.log(1e-3), math.log(1e6)
    log_beta = low if excess(low) <= 0 else high if excess(high) >= 0 else float(brentq(excess, low, high, xtol=1e-9))
    found_NC = torch.empty(n, c)
    for rows in _chunks(n, c):
        found_NC[rows] = similarity_NC[rows].mul(2 * math.exp(log_beta)).softmax(1).float()
    return found_NC


def _chunks(n: int, c: int) -> Iterator[slice]:
    """Rows of (n, c), a limited number at a time."""
    step = max(1, CHUNK // c)
    return (slice(start, start + step) for start in range(0, n, step))
