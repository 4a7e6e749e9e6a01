"""Several processes: sums, batches and random numbers over all ranks, and the identity where there is one process.

A global batch is the ranks' batches one after the other. Everything here makes a run on W ranks the run of one
process on the global batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce as differentiable_sum
from torch.nn.modules.batchnorm import _BatchNorm

from dnas.errors import UserError
from dnas.run.device import Device


def active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if active() else 0


def world() -> int:
    return dist.get_world_size() if active() else 1


def start(device: Device) -> Device:
    """Join the processes that `torchrun` started, if it did. Returns the device of this rank.

    Raises:
        UserError: more ranks on this machine than GPUs.
    """
    if os.environ.get("WORLD_SIZE", "1") in ("", "1") or active():
        return device
    needed = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if absent := [name for name in needed if not os.environ.get(name)]:
        raise UserError(f"WORLD_SIZE is set and {absent[0]} is not: start several processes with torchrun, or unset it")
    local = int(os.environ["LOCAL_RANK"])
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        if local >= torch.cuda.device_count():
            found = f"{local + 1} processes for {torch.cuda.device_count()} GPUs"
            raise UserError(f"torchrun: found {found}, allowed: --nproc_per_node up to the number of GPUs")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=2))
    return "cuda" if on_gpu else "cpu"


def only_one(verb: str) -> None:
    """Refuse to be one of several processes.

    Raises:
        UserError: torchrun started more.
    """
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UserError(f"{verb}: found {os.environ['WORLD_SIZE']} processes, allowed: one (torchrun is for retrain)")


def wait_for_all() -> None:
    if active():
        dist.barrier()


@contextmanager
def one_first() -> Iterator[None]:
    """On every machine one process does this before the others: they find what it left in the cache."""
    others = active() and int(os.environ.get("LOCAL_RANK", "0")) > 0
    if others:
        wait_for_all()
    yield
    if not others:
        wait_for_all()


def own(count: int) -> slice:
    """The rows of this rank among the `count` of a global batch."""
    each = count // world()
    return slice(rank() * each, (rank() + 1) * each)


def all_reduce_sum(*tensors: Tensor) -> None:
    """Replace every tensor by its sum over the ranks, in place."""
    if active():
        for tensor in tensors:
            dist.all_reduce(tensor)


def all_gather(tensor: Tensor) -> Tensor:
    """The tensors (of one shape) of all ranks, one after the other along the first dimension.

    The own part keeps its gradient: the gradients of all ranks add up to that of one process.
    """
    if not active():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world())]
    dist.all_gather(parts, tensor.detach().contiguous())
    parts[rank()] = tensor
    return torch.cat(parts)


def broadcast(tensor: Tensor) -> None:
    """Replace a tensor by that of rank 0, in place."""
    if active():
        dist.broadcast(tensor, 0)


def rand_like(tensor: Tensor) -> Tensor:
    """Uniform numbers for (B, ...): the own rows of those that one process would draw for the global batch."""
    dtype = (
        tensor.dtype if tensor.dtype == torch.float64 else torch.float32
    )  # half precision is too coarse near 0 and 1
    count = len(tensor) * world()
    return torch.rand(count, *tensor.shape[1:], dtype=dtype, device=tensor.device)[own(count)]


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the global batch, on devices for which torch has none (its own is for GPUs)."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        over = [d for d in range(input.dim()) if d != 1]
        wide = input.float() if input.dtype != torch.float64 else input
        count = wide.numel() // wide.shape[1] * world()
        total = differentiable_sum(torch.stack([wide.sum(over), wide.square().sum(over)]))
        mean, variance = total[0] / count, (total[1] / count - (total[0] / count).square()).clamp(min=0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), share)
            self.running_var.lerp_(variance.detach() * count / max(count - 1, 1), share)
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = (variance + self.eps).rsqrt() * self.weight
        normalised: Tensor = wide * scale.view(shape) + (self.bias - mean * scale).view(shape)
        return normalised.to(input.dtype)


def synchronised(net: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norms over the global batch."""
    if not active():
        return net
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        return converted
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                norm = GlobalBatchNorm(child.num_features, child.eps, child.momentum)
                norm.weight, norm.bias = child.weight, child.bias
                norm.running_mean, norm.running_var = child.running_mean, child.running_var
                norm.num_batches_tracked = child.num_batches_tracked
                setattr(module, name, norm)
    return net
