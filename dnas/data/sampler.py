"""P x K batches: P identities, K images of each (Hermans et al., arXiv 1703.07737)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.run import distributed


class PKSampler:
    """Batches of image indices as a function of (seed, epoch) alone.

    In an epoch every identity comes about equally often, however many images it has: one with fewer than K repeats
    some, one with many may not show all of them. Batches never hold one identity twice.

    Args:
        labels: identity of every image, 0..C-1.
        identities: P; reduced to the number of identities where there are fewer.
        images: K.

    Raises:
        UserError: several processes cannot share P equally.
    """

    def __init__(self, labels: NDArray[np.int64], identities: int, images: int, seed: int) -> None:
        self.labels, self.seed = labels, seed
        self.images = images
        self.identities = min(identities, len(np.unique(labels)))
        if self.identities % distributed.world():
            found = f"{self.identities} identities a batch for {distributed.world()} processes"
            raise UserError(f"optim.identities: found {found}, allowed: a multiple of the number of processes")

    def __len__(self) -> int:
        """Batches in an epoch: as many as all images would fill, and at least one."""
        return max(1, len(self.labels) // (self.identities * self.images))

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Indices (batches, P * K), images of an identity side by side."""
        rng = np.random.default_rng([self.seed, 3, epoch])
        order = rng.permutation(len(self.labels))
        by_label = order[np.argsort(self.labels[order], kind="stable")]  # shuffled inside each identity
        classes, start, count = np.unique(self.labels[by_label], return_index=True, return_counts=True)
        # which identities: permutations of all of them, one after the other, so that each comes equally often
        needed = len(self) * self.identities
        rounds = -(-needed // len(classes))
        ranks = rng.random((rounds, len(classes))).argsort(1).reshape(-1)
        chosen = self._distinct(ranks, needed, rng)
        # which images: walk on through the shuffled images of the identity at each of its visits
        visit = _occurrence(chosen)
        offset = visit[:, None] * self.images + np.arange(self.images)
        indices = by_label[start[chosen][:, None] + offset % count[chosen][:, None]]
        return indices.reshape(len(self), self.identities * self.images)

    def _distinct(self, ranks: NDArray[np.int64], needed: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The first `needed` ranks; a batch that crosses two permutations and repeats an identity is redrawn."""
        batches = ranks[:needed].reshape(len(self), self.identities).copy()
        ordered = np.sort(batches, axis=1)
        repeats = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero()[0]
        if len(repeats):
            fresh = rng.random((len(repeats), int(np.max(ranks)) + 1)).argsort(1)
            batches[repeats] = fresh[:, : self.identities]
        flat: NDArray[np.int64] = batches.reshape(-1)
        return flat


def _occurrence(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many times each value came before: [a b a a] -> [0 0 1 2]."""
    order = np.argsort(values, kind="stable")
    _, start, count = np.unique(values[order], return_index=True, return_counts=True)
    seen = np.empty(len(values), np.int64)
    seen[order] = np.arange(len(values)) - np.repeat(start, count)
    return seen
