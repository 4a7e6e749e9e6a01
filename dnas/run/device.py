"""Where to compute."""

from __future__ import annotations

from typing import Literal

import torch

from dnas.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]


def pick_device(name: Device) -> torch.device:
    """`auto` is CUDA, then MPS, then CPU.

    Raises:
        UserError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, found in there.items() if found)  # type: ignore[assignment]
    if not there[name]:
        raise UserError(
            f"device: '{name}' is not available here, allowed: auto, {', '.join(d for d, ok in there.items() if ok)}"
        )
    return torch.device(name)
