"""Centre loss (Wen et al., ECCV 2016): features near the centre of their identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RATE = 0.5
"""How far centres move towards their features in a step (alpha of the paper)."""


class Centres(nn.Module):
    """Centres (C, D) that follow the batches by the paper's own update, equation 4. Part of the checkpoint."""

    def __init__(self, identities: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre_CD", torch.zeros(identities, dim))
        self.centre_CD: Tensor

    def forward(self, feature_BD: Tensor, labels_B: Tensor, follow: bool = True) -> Tensor:
        """Half the squared distance to the own centre, averaged over the batch.

        Args:
            follow: whether the centres move afterwards.
        """
        gap_BD = feature_BD - self.centre_CD[labels_B].to(feature_BD.dtype)
        if follow:
            with torch.no_grad():
                same_BB = (labels_B[:, None] == labels_B).to(feature_BD.dtype)
                moved_BD = RATE * (same_BB @ gap_BD) / (1 + same_BB.sum(1, keepdim=True))
                # images of one identity write the same values to the same row
                self.centre_CD[labels_B] = (self.centre_CD[labels_B] + moved_BD).to(self.centre_CD.dtype)
        return 0.5 * gap_BD.square().sum(1).mean()
