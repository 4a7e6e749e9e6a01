"""From images to embeddings, and from embeddings to retrieval quality."""

from __future__ import annotations

import torch
from torch import Tensor

from dnas.data.images import Images
from dnas.eval.ranking import Ranking, rank
from dnas.nn.reid_net import ReIDNet


@torch.inference_mode()
def embed(network: ReIDNet, images: Images, batch: int = 128) -> Tensor:
    """Unit vectors (N, D) on the network's device, in eval mode; the mode is put back afterwards."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        found = torch.cat([network.embed(pixels) for pixels in images.batches(batch, device)])
        return found.cpu() if device.type == "mps" else found  # ranking needs float64, which MPS has not
    finally:
        network.train(training)


def retrieve(network: ReIDNet, query: Images, gallery: Images) -> Ranking:
    """Rank the gallery for every query."""
    return rank(
        embed(network, query), embed(network, gallery), (query.pids, query.camids), (gallery.pids, gallery.camids)
    )


def retrieve_within(network: ReIDNet, images: Images) -> Ranking:
    """Every image is a query among all the others of the set (its own camera is removed): held-out identities."""
    embedding = embed(network, images)
    ids = (images.pids, images.camids)
    return rank(embedding, embedding, ids, ids)
