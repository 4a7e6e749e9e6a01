"""The preparation of pixels as a part of the network, against Pillow's own."""

import numpy as np
import pytest
import torch
from PIL import Image

from dnas.data.images import normalise
from dnas.imagenet import STD
from dnas.serve.prepare import Prepare, triangles, whole

U, V = 24, 12


@pytest.mark.parametrize(("height", "width"), [(24, 12), (48, 24), (31, 57), (24, 40), (100, 9), (5, 7), (1, 1)])
def test_pixels_are_pillows_own(height: int, width: int) -> None:
    """To one step of 255, where the two round a half differently."""
    rng = np.random.default_rng(height)
    small = rng.integers(0, 256, (2, 4, 3, 3), dtype=np.uint8)
    pictures = [Image.fromarray(a).resize((width, height), Image.Resampling.BICUBIC) for a in small]
    expected = normalise(
        torch.from_numpy(np.stack([np.asarray(p.resize((V, U), Image.Resampling.BILINEAR)) for p in pictures]))
    )
    found = Prepare(U, V)(torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])))
    steps = (found - expected).abs() * 255 * torch.tensor(STD)[:, None, None]
    assert float(steps.max()) < 1.01
    assert float((steps > 0.01).float().mean()) < 0.2


def test_triangles_by_hand() -> None:
    """4 -> 2 pixels: centres at 1 and 3, the filter reaches 2 to each side."""
    raw = torch.tensor([[0.75, 0.75, 0.25, 0.0], [0.0, 0.25, 0.75, 0.75]])
    torch.testing.assert_close(triangles(4, 2, torch.device("cpu")), raw / raw.sum(1, keepdim=True))
    torch.testing.assert_close(triangles(3, 3, torch.device("cpu")), torch.eye(3))
    assert whole(torch.tensor([-0.6, 0.4, 0.5, 254.5, 300.0])).tolist() == [0, 0, 1, 255, 255]
