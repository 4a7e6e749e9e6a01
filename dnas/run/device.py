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
    there: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, found in there.items() if found)
    if not there[name]:
        allowed = ", ".join(device for device, found in there.items() if found)
        raise UserError(f"device: '{name}' is not available here, allowed: auto, {allowed}")
    if name == "cuda":  # with its number: another thread's current device may be another one
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)
