"""Information bottleneck: soft assignment, the exact plug-in value, and its variational bounds.

Source: "Learning Informative Attention Weights for Person Re-Identification", arXiv 2505.08961.
Shapes: B batch or N images, D embedding, C identities (the columns of an assignment).

    phi(F_i, a) = softmax_a(-beta ||F_i - C_a||^2)      unit vectors: ||f - c||^2 = 2 - 2 f.c
    IB(W)  = I(F~; X~) - I(F~; Y)
    IBB(W) = mean_i sum_b phi(X_i,b) log phi(X_i,b)     (no gradient: it is left out of the loss)
           - mean_i sum_a phi(F_i,a) log Q(a | y_i)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNIFORM_SHARE = 1e-6
"""Share of the uniform distribution mixed into Q, so that no entry is zero."""


def default_beta(identities: int) -> float:
    """Inverse temperature 2 log C: a centroid one unit of squared distance nearer outweighs C - 1 others by a factor C.

    At a fixed beta the assignment goes to uniform as C grows, and the term falls asleep.
    """
    return 2 * math.log(max(identities, 2))


def log_assignment(features_BD: Tensor, centroids_CD: Tensor, beta: float, known_C: Tensor | None = None) -> Tensor:
    """log phi (B, C), in float32 (or float64) and log-space, for unit features and centroids.

    Args:
        known_C: identities that have a centroid; the others get probability zero.
    """
    if features_BD.dtype != torch.float64:
        features_BD = features_BD.float()
    logits_BC = (2 * beta) * (features_BD @ centroids_CD.to(features_BD.dtype).T)
    if known_C is not None:
        logits_BC = logits_BC.masked_fill(~known_C, -torch.inf)
    return logits_BC.log_softmax(1)


def mutual_information(joint_AB: Tensor) -> Tensor:
    """I(A; B) in nats of a joint distribution given as a table."""
    independent_AB = joint_AB.sum(1, keepdim=True) * joint_AB.sum(0, keepdim=True)
    terms_AB: Tensor = torch.special.xlogy(joint_AB, joint_AB) - torch.special.xlogy(joint_AB, independent_AB)
    return terms_AB.sum()


def information_bottleneck(phi_f_NC: Tensor, phi_x_NC: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """The exact plug-in values I(F~; X~), I(F~; Y) and IB, their difference, in nats.

    Args:
        phi_f_NC, phi_x_NC: soft assignments of features and of inputs.
        labels_N: identities 0..C-1.
    """
    n, c = phi_f_NC.shape[0], int(labels_N.max()) + 1
    onehot_NC = F.one_hot(labels_N, c).to(phi_f_NC.dtype)
    with_x = mutual_information(phi_f_NC.T @ phi_x_NC / n)
    with_y = mutual_information(phi_f_NC.T @ onehot_NC / n)
    return {"I(F;X)": with_x, "I(F;Y)": with_y, "IB": with_x - with_y}


def bound(log_phi_BC: Tensor, log_q_rows_BC: Tensor, tight: bool = False) -> Tensor:
    """The part of the bound that has a gradient, in nats.

    paper: -mean_i sum_a phi(F_i,a) log Q(a|y_i);   tight: mean_i KL(phi(F_i,.) || Q(.|y_i)).

    Args:
        log_phi_BC: log of the soft assignment.
        log_q_rows_BC: row y_i of log Q(.|y) for every image.
    """
    phi_BC = log_phi_BC.exp()
    cross = -(phi_BC * log_q_rows_BC).sum(1)
    if not tight:
        return cross.mean()
    # phi log phi with 0 log 0 = 0: an identity without a centroid has log phi = -inf
    return (cross + (phi_BC * log_phi_BC.clamp(min=torch.finfo(log_phi_BC.dtype).min)).sum(1)).mean()


class ClassStatistics(nn.Module):
    """Centroids (C x D) and Q (C x C): what the bound needs of the training set. Part of the checkpoint.

    `refresh` takes one pass over the training images (the paper); `update` follows training batches by
    exponential moving averages per identity, bias-corrected, at no extra pass.

    Args:
        identities: C.
        dim: D.
        beta: inverse temperature; None is `default_beta`.
        momentum: of the moving averages, per visit of an identity.
    """

    def __init__(self, identities: int, dim: int, beta: float | None = None, momentum: float = 0.9) -> None:
        super().__init__()
        self.beta = default_beta(identities) if beta is None else beta
        self.momentum = momentum
        self.register_buffer("feature_sum_CD", torch.zeros(identities, dim))
        self.register_buffer("phi_sum_CC", torch.zeros(identities, identities))
        self.register_buffer("weight_C", torch.zeros(identities))
        self.register_buffer("phi_weight_C", torch.zeros(identities))
        self.feature_sum_CD: Tensor
        self.phi_sum_CC: Tensor
        self.weight_C: Tensor
        self.phi_weight_C: Tensor

    @property
    def centroids_CD(self) -> Tensor:
        return F.normalize(self.feature_sum_CD, dim=1)

    def log_assignment(self, embedding_BD: Tensor) -> Tensor:
        """log phi of embeddings (normalised here) to the identities seen so far."""
        return log_assignment(F.normalize(embedding_BD.float(), dim=1), self.centroids_CD, self.beta, self.weight_C > 0)

    def log_q_rows(self, labels_B: Tensor) -> Tensor:
        """log Q(.|y_i): rows of the mean assignment per identity, mixed with a little of the uniform."""
        rows_BC = self.phi_sum_CC[labels_B] / self.phi_weight_C[labels_B].clamp(min=1e-12)[:, None]
        return torch.lerp(rows_BC, torch.full_like(rows_BC, 1 / rows_BC.shape[1]), UNIFORM_SHARE).log()

    @torch.no_grad()
    def refresh(self, embeddings_ND: Tensor, labels_N: Tensor) -> None:
        """Set the statistics from one pass over the training images (embeddings in eval mode)."""
        unit_ND = F.normalize(embeddings_ND.float(), dim=1)
        ones_N = torch.ones_like(labels_N, dtype=self.weight_C.dtype)
        self.weight_C.zero_().index_add_(0, labels_N, ones_N)
        self.feature_sum_CD.zero_().index_add_(0, labels_N, unit_ND)
        self.phi_weight_C.copy_(self.weight_C)
        self.phi_sum_CC.zero_().index_add_(0, labels_N, self.log_assignment(unit_ND).exp())

    @torch.no_grad()
    def update(self, embeddings_BD: Tensor, labels_B: Tensor) -> None:
        """Follow one training batch."""
        unit_BD = F.normalize(embeddings_BD.float(), dim=1)
        onehot_CB = F.one_hot(labels_B, len(self.weight_C)).T.float()
        count_C = onehot_CB.sum(1)
        seen_C = (count_C > 0).float()
        mean_CB = onehot_CB / count_C.clamp(min=1)[:, None]
        decay_C = 1 - (1 - self.momentum) * seen_C
        share_C = (1 - self.momentum) * seen_C
        self.weight_C.mul_(decay_C).add_(share_C)
        self.feature_sum_CD.mul_(decay_C[:, None]).addmm_(mean_CB * share_C[:, None], unit_BD)
        phi_BC = self.log_assignment(unit_BD).exp()
        self.phi_weight_C.mul_(decay_C).add_(share_C)
        self.phi_sum_CC.mul_(decay_C[:, None]).addmm_(mean_CB * share_C[:, None], phi_BC)
