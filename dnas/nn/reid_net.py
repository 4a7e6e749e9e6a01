"""A backbone with the Re-ID head: pooling, BNNeck, identity classifier (Luo et al., arXiv 1903.07071).

Shapes: B batch, D embedding, C identities.
"""

from __future__ import annotations

from torch import Tensor, nn

from dnas.nn.builder import PlainBuilder
from dnas.nn.network import Network
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec


class ReIDNet(Network):
    """Images (B, 3, H, W) -> Output; the embedding is the feature after the neck, and `embed` what retrieval uses."""

    def __init__(self, spec: Spec, x: Shape, identities: int, builder: Builder | None = None) -> None:
        builder = builder or PlainBuilder()
        super().__init__(spec, x, builder)
        dim = spec.out(x).channels
        self.neck = builder.vector_norm(dim)
        self.neck.bias.requires_grad_(False)  # the neck only scales: the embedding stays centred
        self.classifier = nn.Linear(dim.size, identities, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def embedding(self, feature_BD: Tensor) -> Tensor:
        found: Tensor = self.neck(feature_BD)
        return found
