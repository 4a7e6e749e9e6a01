"""Random numbers that belong to the rows of a global batch: each rank draws those of its own rows alone.

Number i of a draw is a function of i and of the draw's key (generators that jump to any place), so that any part of it
is made without the rest. The key is the next number of torch's own generator, which all ranks have set alike: with
seed, epoch and step it stands for the place in the network. (In what torch.compile makes, it is the next number of the
compiler's generator, which torch's seeds: other noise, and as repeatable.)
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dnas.run import distributed


def rand_like(tensor: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) for (B, ...): the own rows of those that one process would draw for the global batch.

    Half precision is too coarse near 0 and 1: at least single.
    """
    dtype = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
    key = torch.randint(2**62, ())
    count = tensor.numel()
    draw = pcg64 if tensor.device.type == "cpu" else splitmix
    return draw(key, distributed.rank() * count, count, dtype, tensor.device).view(tensor.shape)


@torch.library.custom_op("dnas::pcg64", mutates_args=())
def pcg64(key: Tensor, start: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers `start` to `start + count` of a draw on the CPU, by NumPy's PCG64 (O'Neill, 2014)."""
    kind, block = (np.float64, 1) if dtype == torch.float64 else (np.float32, 2)  # numbers in one step of its state
    bits = np.random.PCG64(int(key))
    bits.advance(start // block)
    skipped = start % block
    return torch.from_numpy(np.random.Generator(bits).random(skipped + count, kind)[skipped:])


@pcg64.register_fake
def _(key: Tensor, start: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(count, dtype=dtype, device=device)


def splitmix(key: Tensor, start: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The same (other numbers) for other devices, by SplitMix64 (Steele et al., OOPSLA 2014) in torch's int64."""
    z = torch.arange(start + 1, start + count + 1, device=device)
    z.mul_(_signed(0x9E3779B97F4A7C15)).add_(key.to(device, non_blocking=True))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z.bitwise_xor_(_shifted(z, shift)).mul_(_signed(factor))
    z.bitwise_xor_(_shifted(z, 31))
    digits = 53 if dtype == torch.float64 else 24
    return _shifted(z, 64 - digits).to(dtype).mul_(math.ldexp(1.0, -digits))


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >> 63 else constant


def _shifted(z: Tensor, by: int) -> Tensor:
    """A shift to the right that brings in zeros; int64's own brings in the sign."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)
