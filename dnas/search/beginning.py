"""When the logits of a search begin to learn: once the weights tell networks apart, and keep to what they said.

Before that, options that learn fast (skips, small kernels) look better than they are. A fixed set of random networks is
judged after every epoch by the loss of the supernet's weights on the same batches; the logits begin when the ranking of
these networks agrees with the one of some epochs before (Spearman), and at the latest half-way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dnas.run import distributed
from dnas.search.relaxation import Relaxation
from dnas.space.spec import Choices

Batches = Iterable[tuple[Tensor, Any]]

NETWORKS = 24
BATCHES = 2
AGREEMENT = 0.8
"""Rankings of random networks that agree like this no longer change for what they are about."""
LATEST = 0.5
"""Share of the epochs after which logits begin in any case."""
APART = 0.1
"""Share of the epochs between two rankings that are compared."""


class Beginning:
    """Part of the checkpoint: which epoch the logits begin in, and what the verdicts were so far.

    Args:
        epochs: of the search.
        share: of the epochs that train weights alone; none: measured.
    """

    def __init__(self, epochs: int, share: float | None) -> None:
        self.measured, self.apart = share is None, max(1, math.ceil(APART * epochs))
        self.latest = math.ceil((LATEST if share is None else share) * epochs)
        self.settled: int | None = None
        self.begun: int | None = None
        self.agreement: float | None = None
        self.verdicts: dict[int, list[float]] = {}

    @property
    def epoch(self) -> int:
        """The first one in which logits learn, as far as is known."""
        if self.begun is not None:  # a search that goes on with more epochs does not stop its logits
            return self.begun
        return self.latest if self.settled is None or not self.measured else min(self.settled, self.latest)

    def begins(self, epoch: int) -> bool:
        """Whether logits learn in this epoch, which is about to be trained."""
        if self.begun is None and epoch >= self.epoch:
            self.begun = self.epoch
        return epoch >= self.epoch

    def asks(self, epoch: int) -> bool:
        """Whether it wants a verdict after this epoch."""
        return self.measured and epoch + 1 < self.epoch

    def tell(self, epoch: int, loss_N: Tensor) -> None:
        """The verdict after an epoch: the loss of every network of the set."""
        distributed.broadcast(loss_N)
        self.verdicts[epoch] = loss_N.tolist()
        before = self.verdicts.get(epoch - self.apart)
        if before is not None:
            from scipy.stats import spearmanr  # slow to import

            agreement = float(spearmanr(before, self.verdicts[epoch])[0])
            self.agreement = None if math.isnan(agreement) else agreement
            if agreement >= AGREEMENT:
                self.settled = epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return {"settled": self.settled, "begun": self.begun, "verdicts": dict(self.verdicts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.settled, self.begun, self.verdicts = state["settled"], state.get("begun"), dict(state["verdicts"])


@torch.no_grad()
def losses(
    networks: Sequence[Choices],
    relaxation: Relaxation,
    net: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batches: Batches,
) -> Tensor:
    """The mean loss of every network with the supernet's weights over the batches, (N,).

    In training mode, with batch norm statistics of each batch; running statistics and masks are put back.

    Args:
        loss: of what the network puts out and the target.
    """
    training, kept = net.training, {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()
    total_N = torch.zeros(len(networks), device=relaxation.logits_HK.device)
    count = 0
    for inputs, target in batches:
        count += 1
        for n, choices in enumerate(networks):
            relaxation.fix(choices)
            total_N[n] += loss(net(inputs), target)
    for name, buffer in net.named_buffers():
        buffer.copy_(kept[name])
    net.train(training)
    return total_N / count
