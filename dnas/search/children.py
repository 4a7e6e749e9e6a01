"""Networks of a supernet on their own: with its weights, and batch norm statistics that are theirs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from dnas.data.augment import Augmenter, draw
from dnas.data.images import Images
from dnas.nn.reid_net import ReIDNet
from dnas.run import distributed, seeds
from dnas.search.supernet import inherit
from dnas.space.spec import Choices, Space, fill

RECALIBRATION_BATCHES = 20
RECALIBRATION_BATCH = 64


@dataclass(frozen=True)
class Children:
    """Makes children of a supernet.

    Args:
        images: training images, for the statistics of batch norms.
    """

    space: Space
    net: ReIDNet
    images: Images
    augment: Augmenter
    seed: int

    def child(self, choices: Choices) -> ReIDNet:
        """The plain network of these choices with the supernet's weights, by slicing."""
        device = next(self.net.parameters()).device
        child = ReIDNet(fill(self.space.spec, choices), self.space.input, self.images.identities)
        child.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        inherit(child, self.net, choices)
        return child

    @torch.no_grad()
    def recalibrated(self, choices: Choices) -> ReIDNet:
        """The child with batch norm statistics of its own, averaged over about 20 training batches."""
        child = self.child(choices)
        device = next(child.parameters()).device
        for norm in (module for module in child.modules() if isinstance(module, _BatchNorm)):
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        torch.manual_seed(seeds.derive(self.seed, "recalibrate"))  # DCS draws noise in training mode
        generator = seeds.generator(self.seed, "recalibrate")
        child.train()
        with distributed.apart():  # every rank makes the same child
            for _ in range(RECALIBRATION_BATCHES):
                index = torch.randint(len(self.images), (RECALIBRATION_BATCH,), generator=generator)
                child(self.augment(self.images.take(index, device), draw(len(index), generator)))
        return child.eval()
