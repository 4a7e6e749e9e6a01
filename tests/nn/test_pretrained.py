"""Weights under torchvision's names load, and wrong files are refused in one line."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, mobilenet_v2, resnet18

from dnas.errors import UserError
from dnas.nn.attention import ATTENTION
from dnas.nn.backbones import backbone
from dnas.nn.builder import Builder
from dnas.nn.chain import Skip
from dnas.nn.dcs_attention import DCSAttention
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


def test_old_files_load(tmp_path: Path) -> None:
    """Published files lack batch-norm counters and name a transformer's layers linear_1 and linear_2."""
    state = {name: tensor for name, tensor in resnet18().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "w.pt")
    ours = backbone("resnet18").build(X, Builder())
    load_weights(ours, tmp_path / "w.pt")
    assert torch.equal(ours[0].conv1.weight, state["conv1.weight"])
    vit = VisionTransformer(image_size=32, patch_size=16, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=768)
    old = {
        n.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for n, t in vit.state_dict().items()
    }
    assert any("linear_2" in name for name in old)
    torch.save(old, tmp_path / "v.pt")
    load_weights(backbone("vit_tiny_16").build(image(32, 32), Builder()), tmp_path / "v.pt")


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


def test_vit_equals_torchvision_and_selection_changes_nothing(tmp_path: Path) -> None:
    original = VisionTransformer(image_size=32, patch_size=16, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=768)
    original.eval()
    nn.init.normal_(original.encoder.pos_embedding)
    torch.save(original.state_dict(), tmp_path / "w.pt")
    x = torch.randn(2, 3, 32, 32)
    tokens = original.encoder(torch.cat([original.class_token.expand(2, -1, -1), original._process_input(x)], 1))
    for cell in (Skip(), DCSAttention()):
        ours = backbone("vit_tiny_16", attention=lambda stage, cell=cell: cell).build(image(32, 32), Builder()).eval()
        load_weights(ours, tmp_path / "w.pt")
        torch.testing.assert_close(ours(x)[:, :, 0, 0], tokens[:, 0], atol=1e-5, rtol=1e-5)
    other_size = backbone("vit_tiny_16").build(image(64, 32), Builder())
    load_weights(other_size, tmp_path / "w.pt")  # the position embedding is resized


def test_attention_at_the_start_leaves_a_trained_network_as_it_is() -> None:
    x = torch.randn(2, 3, 64, 32)
    plain = backbone("resnet18", 0.25).build(X, Builder()).eval()
    for name, cell in ATTENTION.items():
        network = backbone("resnet18", 0.25, attention=lambda stage, cell=cell: cell).build(X, Builder()).eval()
        own = network.state_dict()
        network.load_state_dict({**own, **plain.state_dict()})
        torch.testing.assert_close(network(x), plain(x), rtol=0, atol=0, msg=name)
