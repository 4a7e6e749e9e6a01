"""Images that tests of data sets write themselves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.manifests import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a small image of noise, each another one."""
    rng = np.random.default_rng(0)

    def one(name: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), np.uint8)).save(file)
        return file

    return one
