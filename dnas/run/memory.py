"""What the C library does with the memory that a training step on the CPU has freed."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt(3)."""


def keep_blocks() -> bool:
    """Let glibc keep freed memory for the next step.

    By default blocks of 32 MB and more are the system's again as soon as they are free, and every step pays for their
    pages anew, each filled with zeros: half the time of a network with large maps (`tools/bench/memory.py`). The
    process then holds what its largest step held. Nothing is changed where the environment has said how to allocate.

    Returns:
        Whether it does: not without glibc.
    """
    said = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    if said or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, 2**31 - 1), mallopt(TOP_PAD, 2**26)])
