"""A backbone with the Re-ID head: pooling, BNNeck, identity classifier (Luo et al., arXiv 1903.07071).

Shapes: B batch, D embedding, C identities.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.builder import PlainBuilder
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec


class Output(NamedTuple):
    """What a training step needs: the triplet loss takes `feature`, the others what comes after the neck."""

    feature_BD: Tensor
    embedding_BD: Tensor
    logits_BC: Tensor


class ReIDNet(nn.Module):
    """Images (B, 3, H, W) -> Output; `embed` gives what retrieval uses."""

    def __init__(self, spec: Spec, x: Shape, identities: int, builder: Builder | None = None) -> None:
        super().__init__()
        dim, builder = spec.out(x).channels, builder or PlainBuilder()
        self.backbone = spec.build(x, builder)
        self.neck = builder.vector_norm(dim)
        self.neck.bias.requires_grad_(False)  # the neck only scales: the embedding stays centred
        self.classifier = nn.Linear(dim.size, identities, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, images: Tensor) -> Output:
        feature_BD = self.backbone(images).mean((2, 3))
        embedding_BD = self.neck(feature_BD)
        return Output(feature_BD, embedding_BD, self.classifier(embedding_BD))

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D): the feature after the neck, L2-normalised."""
        return F.normalize(self.raw(images), dim=1)

    def raw(self, images: Tensor) -> Tensor:
        """The feature after the neck (B, D), at least in single precision."""
        found: Tensor = self.neck(self.backbone(images).mean((2, 3)))
        return found if found.dtype == torch.float64 else found.float()
