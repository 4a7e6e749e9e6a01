"""Shared by all tests: small data sets, deterministic torch."""

import os
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # several of them share the cores; torch reads it when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

from dnas.data.synthetic import SynthConfig, synthesise

settings.register_profile("no deadline", deadline=None)  # a machine may be busy
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: so that workers which run them in parallel end together."""
    items.sort(key=lambda item: -sum(item.get_closest_marker(name) is not None for name in ("slow", "long")))


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody calls it
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Marks of groups are lost between xdist 3.8 and pytest 9.2, where a test's name can no longer be added to."""
    from tests.scheduling import Together

    return Together(config, log)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded images go to a folder of this test run."""
    os.environ["DNAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def pedestrians(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten identities in three cameras, 32x16 pixels."""
    out = tmp_path_factory.mktemp("data") / "pedestrians"
    synthesise(SynthConfig(str(out), ids=10, cameras=3, images=2, height=32, width=16))
    return out
