"""A backbone with a linear classifier on its pooled feature."""

from __future__ import annotations

from torch import Tensor, nn

from dnas.nn.network import Network
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec


class ClassifyNet(Network):
    """Images (B, 3, H, W) -> Output; the embedding is the pooled feature itself."""

    def __init__(self, spec: Spec, x: Shape, classes: int, builder: Builder | None = None) -> None:
        super().__init__(spec, x, builder)
        self.classifier = nn.Linear(spec.out(x).channels.size, classes)

    def embedding(self, feature_BD: Tensor) -> Tensor:
        return feature_BD
