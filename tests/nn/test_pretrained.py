"""Weights under torchvision's names load, and wrong files are refused in one line."""

from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2, resnet18

from dnas.errors import UserError
from dnas.nn.backbones import backbone
from dnas.nn.builder import Builder
from dnas.nn.pretrained import load_weights
from dnas.space.spec import image

X = image(64, 32)


def test_mobilenet_equals_torchvision(tmp_path: Path) -> None:
    """MobileNetV2 differs from torchvision's in its last stride alone; set it back and the outputs agree."""
    original = mobilenet_v2().eval()
    torch.save(original.state_dict(), tmp_path / "w.pt")
    ours = backbone("mobilenet_v2").build(X, Builder()).eval()
    load_weights(ours, tmp_path / "w.pt")
    for module in ours.modules():
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 576 and module.groups == 576:
            strided = module
            break
    x = torch.randn(1, 3, 64, 32)
    originals = [m for m in original.modules() if isinstance(m, torch.nn.Conv2d) and m.stride == (2, 2)]
    last = originals[-1]
    assert last.in_channels == 576
    last.stride = strided.stride
    torch.testing.assert_close(ours(x), original.features(x))


def test_resnet_equals_torchvision(tmp_path: Path) -> None:
    original = resnet18().eval()
    torch.save(original.state_dict(), tmp_path / "w.pt")
    ours = backbone("resnet18").build(X, Builder()).eval()
    load_weights(ours, tmp_path / "w.pt")
    original.layer4[0].conv1.stride = (1, 1)  # last stride 1
    original.layer4[0].downsample[0].stride = (1, 1)
    x = torch.randn(1, 3, 64, 32)
    stem = original.maxpool(original.relu(original.bn1(original.conv1(x))))
    expected = original.layer4(original.layer3(original.layer2(original.layer1(stem))))
    torch.testing.assert_close(ours(x), expected)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    network = backbone("resnet18").build(X, Builder())
    state = resnet18().state_dict()
    file = tmp_path / "w.pt"
    with pytest.raises(UserError, match="no such weights file"):
        load_weights(network, file)
    file.write_bytes(b"not weights")
    with pytest.raises(UserError, match="not a PyTorch state dict"):
        load_weights(network, file)
    torch.save({k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}, file)
    with pytest.raises(UserError, match=r"entry 'layer2.0.conv1.weight' is missing"):
        load_weights(network, file)
    torch.save({**state, "bn1.weight": torch.zeros(3)}, file)
    with pytest.raises(UserError, match=r"entry 'bn1.weight' has shape \[3\], the network \[64\]"):
        load_weights(network, file)
