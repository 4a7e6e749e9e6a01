"""From images to embeddings, and from embeddings to retrieval quality."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dnas.data.images import Images
from dnas.eval.ranking import Ranking, rank
from dnas.nn.network import Network

Distance = Literal["cosine", "euclidean"]


@torch.inference_mode()
def embed(
    network: Network, images: Images, batch: int = 128, distance: Distance = "cosine", flip_average: bool = False
) -> Tensor:
    """Embeddings (N, D) on the network's device, in eval mode; the mode is put back afterwards.

    Args:
        distance: what they will be compared with: unit vectors for cosine, the neck's output for euclidean.
        flip_average: the mean of the embedding of an image and of its mirror image.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()

    def one(pixels: Tensor) -> Tensor:
        found = network.raw(pixels)
        if flip_average:
            found = 0.5 * (found + network.raw(pixels.flip(3)))
        return F.normalize(found, dim=1) if distance == "cosine" else found

    try:
        found = torch.cat([one(pixels) for pixels in images.batches(batch, device)])
        return found.cpu() if device.type == "mps" else found  # ranking needs float64, which MPS has not
    finally:
        network.train(training)


def retrieve_within(
    network: Network, images: Images, distance: Distance = "cosine", flip_average: bool = False
) -> Ranking:
    """Every image is a query among all the others of the set (its own source is removed): held-out identities."""
    embedding = embed(network, images, distance=distance, flip_average=flip_average)
    return rank(embedding, embedding, images.ids, images.ids, distance)
