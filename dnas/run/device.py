"""Where to compute."""

from __future__ import annotations

import re

import torch

from dnas.errors import UserError

Device = str
"""auto, cpu, cuda, cuda:N (the GPU of that number) or mps."""


def pick_device(name: Device) -> torch.device:
    """`auto` is CUDA, then MPS, then CPU. A GPU becomes the current one.

    Raises:
        UserError: no such name, or the device is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": gpus > 0, "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, found in there.items() if found)
    numbered = re.fullmatch(r"cuda:(\d{1,3})", name)
    if name not in there and not numbered:
        raise UserError(f"device: found '{name}', allowed: auto, {', '.join(there)}, or a GPU by its number, cuda:1")
    if not (int(numbered[1]) < gpus if numbered else there[name]):
        allowed = ["auto", *(device for device, found in there.items() if found)]
        allowed += [f"cuda:{number}" for number in range(gpus)]
        raise UserError(f"device: '{name}' is not available here, allowed: {', '.join(allowed)}")
    if numbered:
        torch.cuda.set_device(int(numbered[1]))
    if name.startswith("cuda"):  # with its number: another thread's current device may be another one
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)
