"""Several processes: sums and batches over all ranks, and the identity where there is one process."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_sum(*tensors: Tensor) -> None:
    """Replace every tensor by its sum over the ranks, in place."""
    if active():
        for tensor in tensors:
            dist.all_reduce(tensor)


def all_gather(tensor: Tensor) -> Tensor:
    """The tensors (of one shape) of all ranks, one after the other along the first dimension."""
    if not active():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def broadcast(tensor: Tensor) -> None:
    """Replace a tensor by that of rank 0, in place."""
    if active():
        dist.broadcast(tensor, 0)
