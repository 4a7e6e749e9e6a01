"""Every space, backbone and attention cell can be exported (not all pairs): its own file, so that workers share it."""

from pathlib import Path

import pytest

from dnas.nn.attention import ATTENTION
from dnas.nn.backbones import BACKBONES, backbone
from dnas.serve.export import refusal
from dnas.space.spec import Spec, fill
from tests.serve.test_export import ONNX, exported
from tests.spaces import ALL, random_choices

EVERY: dict[str, Spec] = {
    **{space.name: fill(space.spec, random_choices(space, 0)) for space in ALL},
    **{
        f"{name} {cell}": backbone(name, 4.0 if name == "osnet_x0_25" else 0.25, attention=lambda _, c=spec: c)  # type: ignore[misc]
        for b, name in enumerate(BACKBONES)
        for c, (cell, spec) in enumerate(ATTENTION.items())
        if cell == "none" or (cell == "dcs" if name.startswith("vit") else (b + c) % 3 == 0)
    },
}


@ONNX
@pytest.mark.long
@pytest.mark.parametrize("name", EVERY)
def test_every_network(name: str, tmp_path: Path) -> None:
    size = (64, 32) if name.split()[0] in BACKBONES else (32, 16)
    found = exported(EVERY[name], tmp_path / "net.onnx", size=size)
    assert refusal(found, "fp32") is None
