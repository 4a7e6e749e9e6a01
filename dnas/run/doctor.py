"""What this installation has, what it lacks, and what to do about each."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from dnas.version import own_version

LOWEST_PYTHON, HIGHEST_PYTHON = (3, 10), (3, 13)
LITTLE_DISK = 5e9
"""Bytes below which a run on a published set may not find room: Market-1501 decoded is 3 GB."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what it is.
        found: what is there.
        advice: what to do about it; empty where all is well.
        needed: nothing works without it.
    """

    name: str
    found: str
    advice: str = ""
    needed: bool = False


def examine() -> list[Finding]:
    """Everything that decides whether, and how fast, the verbs run here."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _packages, _device, _threads, _cache, _programs)
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    found, own = platform.python_version(), sys.version_info[:2]
    low, high = (".".join(map(str, ends)) for ends in (LOWEST_PYTHON, HIGHEST_PYTHON))
    tested = LOWEST_PYTHON <= own <= HIGHEST_PYTHON
    yield Finding("python", f"{found}, {platform.system()} {platform.machine()}", "" if tested else
                  f"tested are {low} to {high}", needed=own < LOWEST_PYTHON)  # fmt: skip
    yield Finding("dnas-reid", own_version(), "" if own_version()[0].isdigit() else "pip install dnas-reid")


def _packages() -> Iterator[Finding]:
    """Every requirement of this package, those of its extras too."""
    try:
        wanted = [Requirement(line) for line in requires("dnas-reid") or ()]
    except PackageNotFoundError:
        return
    for requirement in wanted:
        extra = str(requirement.marker).split('"')[1] if requirement.marker else ""
        install = f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            if not extra:
                yield Finding(requirement.name, "missing", install, needed=True)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield Finding(requirement.name, found, install, needed=not extra)
        elif requirement.name in ("torch", "torchvision"):
            yield Finding(requirement.name, found)


def _device() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(number).total_memory
            yield Finding(f"cuda:{number}", f"{torch.cuda.get_device_name(number)}, {memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield Finding("device", "mps")
    else:
        idle = shutil.which("nvidia-smi") is not None
        yield Finding("device", "cpu", "there is an NVIDIA driver, but this torch cannot use it: "
                      "install a torch for CUDA (pytorch.org)" if idle else "")  # fmt: skip


def _threads() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    advice = f"more than cores: export OMP_NUM_THREADS={cores}" if threads > cores else ""
    yield Finding("threads", f"{threads} of {cores} cores", advice)


def _cache() -> Iterator[Finding]:
    from dnas.data.hashes import cache_folder

    folder = cache_folder()
    if folder is None:
        yield Finding("cache", "none: images are kept in memory", "unset DNAS_CACHE to decode every image only once")
    else:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0
        yield Finding("cache", f"{folder}, {size / 1e9:.1f} GB", "" if _writable(folder) else
                      "cannot be written: export DNAS_CACHE=DIR, or none")  # fmt: skip
    for name, place in (("disk of the cache", folder), ("disk here", Path.cwd())):
        if place is not None:
            free = shutil.disk_usage(_existing(place)).free
            advice = f"less than {LITTLE_DISK / 1e9:.0f} GB: make room, or use another folder"
            yield Finding(name, f"{free / 1e9:.0f} GB free", advice if free < LITTLE_DISK else "")


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _programs() -> Iterator[Finding]:
    """What may be there beside Python."""
    dot = shutil.which("dot")
    said = subprocess.run([dot, "-V"], capture_output=True, text=True, check=False).stderr.strip() if dot else "missing"
    yield Finding("graphviz", said, "" if dot else "networks are drawn more plainly without it: apt install graphviz")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    both = chromium is not None and shutil.which("chromedriver") is not None
    yield Finding("chromium", "with its driver" if both else "missing", "" if both else
                  "for the report's own test only: apt install chromium chromium-driver")  # fmt: skip
