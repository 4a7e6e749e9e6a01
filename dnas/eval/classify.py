"""How often a classifier is right.

Shapes: N images, C classes, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import Images
from dnas.nn.network import Network


@dataclass(frozen=True)
class Answers:
    """What a classifier says of some images.

    Args:
        predicted_N: the class of the largest logit.
        label_N: the right one.
        loss_N: cross-entropy of each image, nats.
        embedding_ND: what the classifier got, on the network's device.
    """

    predicted_N: NDArray[np.int64]
    label_N: NDArray[np.int64]
    loss_N: NDArray[np.float64]
    embedding_ND: Tensor

    @property
    def right_N(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.predicted_N == self.label_N
        return found

    def by_class(self, classes: int) -> list[float | None]:
        """Top-1 of every class; none where there is no image of it."""
        counts_C = np.bincount(self.label_N, minlength=classes)
        right_C = np.bincount(self.label_N, self.right_N, classes)
        return [float(right / count) if count else None for right, count in zip(right_C, counts_C, strict=True)]

    def metrics(self) -> dict[str, float]:
        """`top1` over all images, `mean_class` over the classes' own top-1, `loss` in nats."""
        per_class = [share for share in self.by_class(int(np.max(self.label_N)) + 1) if share is not None]
        return {
            "top1": float(self.right_N.mean()),
            "mean_class": float(np.mean(per_class)),
            "loss": float(self.loss_N.mean()),
        }


@torch.inference_mode()
def answers(network: Network, images: Images, labels: NDArray[np.int64], batch: int = 128) -> Answers:
    """Ask a classifier, in eval mode; the mode is put back afterwards.

    Args:
        labels: the right class of every image (N), as the network counts them.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        outputs = [network(pixels) for pixels in images.batches(batch, device)]
    finally:
        network.train(training)
    logits_NC = torch.cat([output.logits_BC.float() for output in outputs]).cpu()
    embedding_ND = torch.cat([output.embedding_BD.float() for output in outputs])
    loss_N = F.cross_entropy(logits_NC.double(), torch.from_numpy(labels), reduction="none")
    return Answers(logits_NC.argmax(1).numpy(), labels, loss_N.numpy(), embedding_ND)
