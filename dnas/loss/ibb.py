"""Information bottleneck: soft assignment, the exact plug-in value, and its variational bounds.

Source: "Learning Informative Attention Weights for Person Re-Identification", arXiv 2505.08961.
Shapes: B batch or N images, D embedding, C identities, K columns of an assignment (C, or clusters).

    phi(F_i, a) = softmax_a(-beta ||F_i - C_a||^2)      unit vectors: ||f - c||^2 = 2 - 2 f.c
    IB(W)  = I(F~; X~) - I(F~; Y)
    IBB(W) = mean_i sum_b phi(X_i,b) log phi(X_i,b)     (no gradient: it is left out of the loss)
           - mean_i sum_a phi(F_i,a) log Q(a | y_i)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.loss.kmeans import kmeans
from dnas.run.distributed import all_reduce_sum

UNIFORM_SHARE = 1e-6
"""Share of the uniform distribution mixed into Q, so that no entry is zero."""


def default_beta(columns: int) -> float:
    """Inverse temperature log K: a centroid nearer by one unit of squared distance has half the mass against K - 1.

    The soft assignment goes from uniform to one-hot around there, at any K, and there the gradient of the
    term is largest; at a fixed beta it goes to uniform as K grows, and the term falls asleep
    (docs/results/informative-attention.md).
    """
    return math.log(max(columns, 2))


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


def assignment_entropies(log_phi_BK: Tensor) -> dict[str, Tensor]:
    """Perplexity of the soft assignment, exp of the mean H(phi_i), and H(F~) of the batch's mean assignment in nats.

    Watch the second: when every image goes to one centroid it is zero, and so is the bound.
    """
    phi_BK = log_phi_BK.exp()
    return {
        "perplexity": torch.special.entr(phi_BK).sum(1).mean().exp(),
        "H(F)": torch.special.entr(phi_BK.mean(0)).sum(),
    }


class ClassStatistics(nn.Module):
    """Centroids (K x D) and Q (C x K): what the bound needs of the training set. Part of the checkpoint.

    K is C, one centroid per identity, unless `clusters` says otherwise. `refresh` takes one pass over the
    training images (the paper); `update` follows training batches by exponential moving averages per
    identity, bias-corrected, at no extra pass. Identities never seen have no centroid and probability zero.
    With several ranks the statistics are those of all ranks' images, the same on every rank.

    Args:
        identities: C.
        dim: D.
        beta: inverse temperature; None is `default_beta(K)`.
        clusters: K, if soft assignment goes to clusters (k-means over the features of a pass).
        momentum: of the moving averages, per visit of an identity.
        used: whether there is a bound that needs them; else they take no memory and no place in a checkpoint.
    """

    def __init__(
        self,
        identities: int,
        dim: int,
        beta: float | None = None,
        clusters: int | None = None,
        momentum: float = 0.9,
        used: bool = True,
    ) -> None:
        super().__init__()
        columns = clusters or identities
        self.beta = default_beta(columns) if beta is None else beta
        self.clusters, self.momentum, self.used = clusters, momentum, used
        rows, columns = (identities, columns) if used else (0, 0)
        self.register_buffer("centroid_sum_KD", torch.zeros(columns, dim), used)
        self.register_buffer("known_K", torch.zeros(columns, dtype=torch.bool), used)
        self.register_buffer("phi_sum_CK", torch.zeros(rows, columns), used)
        self.register_buffer("weight_C", torch.zeros(rows), used)
        self.register_load_state_dict_pre_hook(_as_used)  # type: ignore[no-untyped-call]
        self.centroid_sum_KD: Tensor
        self.known_K: Tensor
        self.phi_sum_CK: Tensor
        self.weight_C: Tensor

    @property
    def centroids_KD(self) -> Tensor:
        return F.normalize(self.centroid_sum_KD, dim=1)

    def log_assignment(self, embedding_BD: Tensor) -> Tensor:
        """log phi (B, K) of embeddings (normalised here)."""
        return log_assignment(unit(embedding_BD), self.centroids_KD, self.beta, self.known_K)

    def log_q_rows(self, labels_B: Tensor) -> Tensor:
        """log Q(.|y_i): the mean assignment of each image's identity, mixed with a little of the uniform."""
        rows_BK = self.phi_sum_CK[labels_B] / self.weight_C[labels_B].clamp(min=1e-12)[:, None]
        return torch.lerp(rows_BK, torch.full_like(rows_BK, 1 / rows_BK.shape[1]), UNIFORM_SHARE).log()

    @torch.no_grad()
    def refresh(self, embeddings_ND: Tensor, labels_N: Tensor, generator: torch.Generator | None = None) -> None:
        """Set the statistics from one pass over the training images (embeddings in eval mode).

        Args:
            generator: of the clustering, on the CPU; needed with `clusters`.
        """
        if not self.used:
            return
        unit_ND = unit(embeddings_ND)
        self.weight_C.zero_().index_add_(0, labels_N, torch.ones_like(labels_N, dtype=self.weight_C.dtype))
        if self.clusters:
            assert generator is not None
            self.centroid_sum_KD.copy_(kmeans(unit_ND, self.clusters, generator))
            self.known_K.fill_(True)
            all_reduce_sum(self.weight_C)
        else:
            self.centroid_sum_KD.zero_().index_add_(0, labels_N, unit_ND)
            all_reduce_sum(self.weight_C, self.centroid_sum_KD)
            self.known_K.copy_(self.weight_C > 0)
        self.phi_sum_CK.zero_()
        for rows in torch.arange(len(labels_N), device=labels_N.device).split(4096):  # N x K would not fit
            self.phi_sum_CK.index_add_(0, labels_N[rows], self.log_assignment(unit_ND[rows]).exp())
        all_reduce_sum(self.phi_sum_CK)

    @torch.no_grad()
    def update(self, embeddings_BD: Tensor, labels_B: Tensor) -> None:
        """Follow one batch, the global one (not with `clusters`). Work is O(B (B + K) D); no host-device sync."""
        unit_BD = unit(embeddings_BD)
        same_BB = (labels_B[:, None] == labels_B).to(unit_BD.dtype)
        mean_BB = same_BB / same_BB.sum(1, keepdim=True)  # row i averages the images of identity y_i
        # images of one identity write the same values to the same row
        keep, add = self.momentum, 1 - self.momentum
        self.weight_C[labels_B] = keep * self.weight_C[labels_B] + add
        self.known_K[labels_B] = True
        self.centroid_sum_KD[labels_B] = keep * self.centroid_sum_KD[labels_B] + add * (mean_BB @ unit_BD)
        phi_BK = self.log_assignment(unit_BD).exp()
        self.phi_sum_CK[labels_B] = keep * self.phi_sum_CK[labels_B] + add * (mean_BB @ phi_BK)


def _as_used(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Go on from a checkpoint that has statistics where none are used, or none where they begin to be."""
    assert isinstance(module, ClassStatistics)
    buffers = {prefix + name: buffer for name, buffer in module.named_buffers()}
    if not module.used:
        for name in buffers:
            state.pop(name, None)
    elif not buffers.keys() & state.keys():
        state.update(buffers)


def unit(embedding_BD: Tensor) -> Tensor:
    """Unit vectors in float32 (float64 stays); zero stays zero, and overflow is avoided by scaling first."""
    if embedding_BD.dtype != torch.float64:
        embedding_BD = embedding_BD.float()
    largest_B1 = embedding_BD.detach().abs().amax(1, keepdim=True).clamp(min=torch.finfo(embedding_BD.dtype).tiny)
    return F.normalize(embedding_BD / largest_B1, dim=1)
