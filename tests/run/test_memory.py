"""Training on the CPU keeps its memory, unless the environment says how to allocate."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from dnas.run.memory import keep_blocks
kept = keep_blocks() if {keep} else False
def step():
    return [torch.zeros(10_000_000) + 1 for _ in range(2)]
for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool, **environment: str) -> tuple[bool, int]:
    """What `keep_blocks` says, and the pages that four steps of 40 MB tensors are given anew."""
    plain = {
        k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k not in ("GLIBC_TUNABLES", "LD_PRELOAD")
    }
    words = [sys.executable, "-c", FAULTS.format(keep=keep)]
    done = subprocess.run(words, env={**plain, **environment}, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_pages_are_not_given_back_between_steps() -> None:
    (_, before), (kept, after) = faults(False), faults(True)
    assert kept
    assert before > 20_000  # or this test shows nothing
    assert after < before / 5
    assert not faults(True, MALLOC_TOP_PAD_="0")[0]
