"""Randomness as a function of (seed, purpose, epoch, step), so that resuming changes nothing."""

from __future__ import annotations

import numpy as np
import torch

PURPOSES = ("init", "augment", "noise", "draw", "recalibrate", "derive", "cluster", "beginning", "prior", "even")


def derive(seed: int, purpose: str, *position: int) -> int:
    """A 63-bit seed for one purpose at one position (epoch, step, ...)."""
    state = np.random.SeedSequence([seed, PURPOSES.index(purpose), *position]).generate_state(2)
    return int(state[0]) << 31 | int(state[1]) >> 1


def generator(seed: int, purpose: str, *position: int) -> torch.Generator:
    """A CPU generator seeded for one purpose at one position."""
    return torch.Generator().manual_seed(derive(seed, purpose, *position))
