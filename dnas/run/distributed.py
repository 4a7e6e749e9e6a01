"""Several processes: sums, batches and random numbers over all ranks, and the identity where there is one process.

A global batch is the ranks' batches one after the other. Everything here makes a run on W ranks the run of one
process on the global batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce as differentiable_sum
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dnas.errors import UserError
from dnas.run.device import Device

_apart = False


def active() -> bool:
    return not _apart and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def apart() -> Iterator[None]:
    """In here every rank does what one process would do alone: the same on all of them, without communication."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


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
    if device.startswith("cuda:"):
        raise UserError(f"device: found '{device}' with several processes, allowed: cuda; each takes a GPU of its own")
    local = int(os.environ["LOCAL_RANK"])
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        if local >= torch.cuda.device_count():
            found = f"{local + 1} processes for {torch.cuda.device_count()} GPUs"
            raise UserError(f"torchrun: found {found}, allowed: --nproc_per_node up to the number of GPUs")
        torch.cuda.set_device(local)
    try:
        _join("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"torchrun: the processes of this run do not find each other ({reason})") from error
    return "cuda" if on_gpu else "cpu"


def _join(backend: str) -> None:
    """Join the group. A restart must not find the addresses of those before: torchrun keeps its store over restarts."""
    timeout = timedelta(hours=2)
    store, own, count = next(rendezvous("env://", timeout=timeout))
    attempt = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=attempt, rank=own, world_size=count, timeout=timeout)


def restarted() -> bool:
    """Whether the launcher (torchrun --max-restarts, SLURM --requeue) has started this command before."""
    counts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count.isdigit() and int(count) > 0 for count in counts)


def lost_peer(error: BaseException) -> str | None:
    """What to say where an error means that another process of this run has gone; none for any other error."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    words = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    signs = (
        "gloo",
        "nccl",
        "connection closed by peer",
        "connection reset by peer",
        "broken pipe",
        "tcpstore",
        "store->",
    )
    known = isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in signs)
    return f"rank {dist.get_rank()}: another process of this run has ended ({words})" if known else None


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


def sum_numbers(values: list[float]) -> list[float]:
    """The sums over the ranks."""
    if not active():
        return values
    found = torch.tensor(values, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found)
    return [float(value) for value in found.tolist()]


def any_rank(value: bool) -> bool:
    """Whether it is so on any rank; all of them ask together."""
    return sum_numbers([float(value)])[0] > 0


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the ranks, in one message.

    Which parameters have one may change from step to step (a search runs another network in each), but is the same on
    all ranks.
    """
    found = [parameter.grad for parameter in parameters if parameter.grad is not None] if active() else []
    if found:
        flat = torch.cat([gradient.reshape(-1) for gradient in found])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in found])
        for gradient, part in zip(found, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def batch_norm(
    input: Tensor,
    mean_C: Tensor,
    var_C: Tensor,
    gain_C: Tensor,
    bias_C: Tensor,
    training: bool,
    share: float,
    eps: float,
) -> Tensor:
    """`torch.nn.functional.batch_norm` over the global batch; running statistics move by `share`.

    Every rank's mean and sum of squared deviations are merged as Chan et al. do (Algorithms for Computing the Sample
    Variance, 1983): a difference of mean squares would lose a variance that is small against the mean.
    """
    if not (training and active()):
        return F.batch_norm(input, mean_C, var_C, gain_C, bias_C, training, share, eps)
    over = [d for d in range(input.dim()) if d != 1]
    wide = input.float() if input.dtype != torch.float64 else input
    count = wide.numel() // wide.shape[1] * world()
    own_variance, own_mean = torch.var_mean(wide, over, correction=0)
    rows = torch.zeros(world(), 1, 1, dtype=wide.dtype, device=wide.device)
    rows[rank()] = 1.0
    means_WC, variances_WC = differentiable_sum(rows * torch.stack([own_mean, own_variance])).unbind(1)
    mean = means_WC.mean(0)  # the ranks' batches are of one size
    variance = variances_WC.mean(0) + (means_WC - mean).square().mean(0)
    mean_C.lerp_(mean.detach().to(mean_C.dtype), share)
    var_C.lerp_((variance.detach() * count / max(count - 1, 1)).to(var_C.dtype), share)
    shape = [1, -1] + [1] * (input.dim() - 2)
    scale = (variance + eps).rsqrt() * gain_C
    return torch.addcmul(bias_C.view(shape), wide - mean.view(shape), scale.view(shape)).to(input.dtype)


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the global batch, on devices for which torch has none (its own is for GPUs)."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        return batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, True, share, self.eps)


def synchronised(net: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norms over the global batch; those of subclasses see to it themselves."""
    if not active():
        return net
    for module in net.modules():
        for name, child in module.named_children():
            if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d) and isinstance(child, _BatchNorm):
                setattr(module, name, _global(child, device))
    return net


def _global(norm: _BatchNorm, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
        return converted
    found = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum)
    found.weight, found.bias = norm.weight, norm.bias
    found.running_mean, found.running_var = norm.running_mean, norm.running_var
    found.num_batches_tracked = norm.num_batches_tracked
    return found
