"""What every network is to the engine: a backbone and a head.

Shapes: B batch, D embedding, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnas.nn.builder import PlainBuilder
from dnas.nn.stages import Stages
from dnas.space.holes import Shape
from dnas.space.spec import Builder, Spec


class Output(NamedTuple):
    """What a training step needs: metric losses take `feature`, the others what comes after the neck."""

    feature_BD: Tensor
    embedding_BD: Tensor
    logits_BC: Tensor
    stages: tuple[Tensor, ...] = ()
    """The pooled output of every stage, where a loss wants it (`Network.with_stages`)."""


class Network(nn.Module, ABC):
    """Images (B, 3, H, W) -> Output. The classifier is `classifier.weight` (C, D), whatever the head."""

    classifier: nn.Linear

    def __init__(self, spec: Spec, x: Shape, builder: Builder | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = spec.build(x, builder or PlainBuilder())
        self.stages = Stages.of(spec, x)
        self.with_stages = False
        """Whether `forward` gives what its stages put out too."""

    def pooled(self, images: Tensor) -> Tensor:
        """The mean over the positions of the backbone's output, (B, D)."""
        found: Tensor = self.backbone(images).mean((2, 3))
        return found

    @abstractmethod
    def embedding(self, feature_BD: Tensor) -> Tensor:
        """What the classifier gets, of the pooled feature."""

    def forward(self, images: Tensor) -> Output:
        stages: tuple[Tensor, ...] = ()
        if self.with_stages:
            map_, stages = self.stages.through(self.backbone, images)
            feature_BD = map_.mean((2, 3))
        else:
            feature_BD = self.pooled(images)
        embedding_BD = self.embedding(feature_BD)
        return Output(feature_BD, embedding_BD, self.classifier(embedding_BD), stages)

    def raw(self, images: Tensor) -> Tensor:
        """The embedding (B, D), at least in single precision."""
        found = self.embedding(self.pooled(images))
        return found if found.dtype == torch.float64 else found.float()

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D): the embedding, L2-normalised."""
        return F.normalize(self.raw(images), dim=1)
