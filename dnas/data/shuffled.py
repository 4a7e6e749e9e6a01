"""Plain batches: every image once an epoch, in an order of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.run import distributed


def shuffled(images: int, batch: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Indices (batches, B) as a function of (seed, epoch) alone; what fills no batch is left out of this epoch.

    Args:
        images: how many there are.
        batch: B; reduced to the number of images where there are fewer.

    Raises:
        UserError: several processes cannot share a batch equally.
    """
    size = min(batch, images)
    if size % distributed.world():
        found = f"batches of {size} for {distributed.world()} processes"
        raise UserError(f"optim.batch: found {found}, allowed: a multiple of the number of processes")
    count = images // size
    order = np.random.default_rng([seed, 3, epoch]).permutation(images)
    return order[: count * size].reshape(count, size)
