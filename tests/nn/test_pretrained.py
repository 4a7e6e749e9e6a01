"""Weights under torchvision's names load, and wrong files are refused in one line."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer, mobilenet_v2, resnet18

from dnas.errors import UserError
from dnas.imagenet import MEAN, STD
from dnas.nn.attention import ATTENTION
from dnas.nn.backbones import backbone, no_attention, swin
from dnas.nn.builder import PlainBuilder
from dnas.nn.chain import Skip
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.pretrained import BackbonePart, load_weights
from dnas.nn.weight_names import TIMM
from dnas.nn.weights_file import for_other_pixels
from dnas.space.spec import image

X = image(64, 32)


def test_mobilenet_equals_torchvision(tmp_path: Path) -> None:
    """MobileNetV2 differs from torchvision's in its last stride alone; set it back and the outputs agree."""
    original = mobilenet_v2().eval()
    torch.save(original.state_dict(), tmp_path / "w.pt")
    ours = backbone("mobilenet_v2").build(X, PlainBuilder()).eval()
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
    ours = backbone("resnet18").build(X, PlainBuilder()).eval()
    load_weights(ours, tmp_path / "w.pt")
    original.layer4[0].conv1.stride = (1, 1)  # last stride 1
    original.layer4[0].downsample[0].stride = (1, 1)
    x = torch.randn(1, 3, 64, 32)
    stem = original.maxpool(original.relu(original.bn1(original.conv1(x))))
    expected = original.layer4(original.layer3(original.layer2(original.layer1(stem))))
    torch.testing.assert_close(ours(x), expected)


def test_swin_equals_torchvision(tmp_path: Path) -> None:
    original = SwinTransformer([4, 4], 32, [1, 1, 2, 1], [1, 2, 4, 8], [7, 7], stochastic_depth_prob=0.0).eval()
    torch.save(original.state_dict(), tmp_path / "w.pt")
    spec = swin(32, (1, 1, 2, 1), 1.0, False, no_attention)
    ours = spec.build(image(72, 44), PlainBuilder()).eval()  # maps that are no multiple of the window
    load_weights(ours, tmp_path / "w.pt")
    x = torch.randn(2, 3, 72, 44)
    expected = original.permute(original.norm(original.features(x)))
    torch.testing.assert_close(ours(x), expected)


def test_osnet_has_its_authors_names_and_cost() -> None:
    """Names from torchreid's osnet.py; 2.2 M parameters and 978.9 M MACs (x0.25: 82.3 M) as its model zoo says."""
    for name, params, macs in (("osnet_x1_0", 2.17e6, 978.9e6), ("osnet_x0_25", 0.2e6, 82.3e6)):
        cost = backbone(name).cost(image(256, 128))
        assert cost.params.value == pytest.approx(params, rel=0.02)
        assert cost.macs.value == pytest.approx(macs, rel=0.001)
    names = set()
    for module in backbone("osnet_x0_25").build(image(64, 32), PlainBuilder()).modules():
        if isinstance(module, BackbonePart):
            names |= set(module.state_dict())
    assert {
        "conv1.conv.weight", "conv1.bn.running_mean", "conv2.0.conv1.conv.weight", "conv2.0.conv2a.conv1.weight",
        "conv2.0.conv2a.bn.weight", "conv2.0.conv2b.0.conv2.weight", "conv2.0.conv2d.3.bn.bias", "conv5.bn.weight",
        "conv2.0.gate.fc1.weight", "conv2.0.gate.fc2.bias", "conv2.0.conv3.bn.weight", "conv4.1.gate.fc2.weight",
        "conv2.0.downsample.conv.weight", "conv2.2.0.conv.weight", "fc.0.weight", "fc.0.bias", "fc.1.running_var",
    } <= names  # fmt: skip
    assert not any(name.startswith("conv4.2") for name in names)  # no reduction after the last stage


def test_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = backbone("resnet18").build(X, PlainBuilder())
    for name, backbone_name, message in (
        (
            "IMAGENET",
            "resnet18",
            "weights: found 'IMAGENET', allowed: a file, the folder of a run, or for resnet18: IMAGENET1K_V1",
        ),
        ("DEFAULT", "osnet_x1_0", "weights: found 'DEFAULT', allowed: a file"),
        ("timm", "resnet18", "weights: found 'timm' with resnet18, allowed with: vit_b_16, vit_s_16"),
    ):
        with pytest.raises(UserError, match=message):
            load_weights(network, name, backbone_name)

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match=r"cannot be fetched from https://.*no route to host.*give --weights FILE"):
        load_weights(network, "IMAGENET1K_V1", "resnet18")
    state = resnet18().state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: state)
    load_weights(network, "IMAGENET1K_V1", "resnet18")
    assert torch.equal(network[0].conv1.weight, state["conv1.weight"])


def test_overlapping_patches_take_a_square_position_embedding(tmp_path: Path) -> None:
    original = VisionTransformer(image_size=64, patch_size=16, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=768)
    torch.save(original.state_dict(), tmp_path / "w.pt")
    ours = backbone("vit_tiny_16", stride=12).build(image(64, 32), PlainBuilder()).eval()
    load_weights(ours, tmp_path / "w.pt")
    assert ours[0].grid == (5, 2)
    assert ours(torch.randn(1, 3, 64, 32)).shape == (1, 192, 1, 1)
    with pytest.raises(UserError, match="backbone_stride: found 20 with vit_tiny_16, allowed: at most the patch size"):
        backbone("vit_tiny_16", stride=20)
    with pytest.raises(UserError, match="backbone_stride: found 12 with resnet18"):
        backbone("resnet18", stride=12)


def transformer(rows: int, columns: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """A state dict of vit_tiny_16 under timm's names, for a grid of patches; its positions are their row."""
    network = backbone("vit_tiny_16").build(image(16 * rows, 16 * columns), PlainBuilder())
    back = sorted(((new, old) for old, new in TIMM), key=lambda pair: -len(pair[0]))
    found = {}
    for part in network.modules():
        for name, value in part.state_dict().items() if isinstance(part, BackbonePart) else ():
            for new, old in back:
                name = name.replace(new, old)
            found[prefix + name.replace("encoder.ln.", "norm.")] = value
    table = torch.arange(rows).repeat_interleave(columns).float()[None, :, None].expand(1, -1, 192)
    found[prefix + "pos_embed"] = torch.cat([torch.full((1, 1, 192), 9.0), table], 1)
    return found


def test_positions_are_of_a_known_grid(tmp_path: Path) -> None:
    """Weights of 16 x 8 patches on 8 x 16 (as many), 24 x 8 and 16 x 8: asked for, then resized row by row."""
    torch.save(transformer(16, 8), tmp_path / "w.pt")
    for height, width in ((8, 16), (24, 8), (16, 8)):
        ours = backbone("vit_tiny_16").build(image(16 * height, 16 * width), PlainBuilder())
        with pytest.raises(UserError, match=rf"has positions of 128 patches; .*--weights_grid {height}x{width} if"):
            load_weights(ours, tmp_path / "w.pt")
        with pytest.raises(UserError, match=r"weights_grid: found 8x8, allowed: a grid of 128 patches"):
            load_weights(ours, tmp_path / "w.pt", grid="8x8")
        said = str(load_weights(ours, tmp_path / "w.pt", grid="16x8"))
        assert (f"positions resized from 16 x 8 to {height} x {width} patches" in said) == ((height, width) != (16, 8))
        table = ours[0].state_dict()["encoder.pos_embedding"][0]
        assert bool((table[0] == 9).all())
        rows = table[1:].unflatten(0, (height, width))
        assert float((rows - rows[:, :1]).abs().max()) < 1e-5  # a position is its row, in every column
        expected = (torch.arange(height) + 0.5) * 16 / height - 0.5
        torch.testing.assert_close(rows[2:-2, 0, 0], expected[2:-2], atol=0.15, rtol=0)
    torch.save(transformer(8, 8), tmp_path / "square.pt")
    ours = backbone("vit_tiny_16").build(image(256, 64), PlainBuilder())  # as many patches: 16 x 4
    assert "positions resized from 8 x 8 to 16 x 4 patches" in str(load_weights(ours, tmp_path / "square.pt"))
    for grid in ("16", "0x8", "16x8x1"):
        with pytest.raises(UserError, match=f"weights_grid: found '{grid}', allowed: rows x columns of patches, such"):
            load_weights(ours, tmp_path / "w.pt", grid=grid)


def test_transreid_names_and_pixels(tmp_path: Path) -> None:
    """Inside `base.`, for pixels of mean 0.5: the first layer sees the same picture."""
    state = transformer(4, 2, "base.")
    extra = {
        "bottleneck.weight": torch.ones(192),
        "classifier.weight": torch.ones(3, 192),
        "base.fc.bias": torch.ones(4),
    }
    torch.save({**state, **extra}, tmp_path / "t.pth")
    ours = backbone("vit_tiny_16").build(image(64, 32), PlainBuilder())
    said = str(load_weights(ours, tmp_path / "t.pth", grid="4x2"))
    assert "3 left out (bottleneck.weight, classifier.weight, fc.bias); for pixels of mean 0.5" in said
    pixels = torch.rand(2, 3, 64, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    weight, bias = state["base.patch_embed.proj.weight"], state["base.patch_embed.proj.bias"]
    theirs = nn.functional.conv2d((pixels - 0.5) / 0.5, weight, bias, stride=16)
    torch.testing.assert_close(ours[0].conv_proj((pixels - mean) / std), theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours[1][0].encoder["layers"]["encoder_layer_0"].ln_1.weight, state["base.blocks.0.norm1.weight"])


def test_vit_equals_torchvision_and_selection_changes_nothing(tmp_path: Path) -> None:
    original = VisionTransformer(image_size=32, patch_size=16, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=768)
    original.eval()
    nn.init.normal_(original.encoder.pos_embedding)
    torch.save(original.state_dict(), tmp_path / "w.pt")
    x = torch.randn(2, 3, 32, 32)
    tokens = original.encoder(torch.cat([original.class_token.expand(2, -1, -1), original._process_input(x)], 1))
    for cell in (Skip(), DCSAttention()):
        ours = (
            backbone("vit_tiny_16", attention=lambda stage, cell=cell: cell).build(image(32, 32), PlainBuilder()).eval()
        )
        load_weights(ours, tmp_path / "w.pt")
        torch.testing.assert_close(ours(x)[:, :, 0, 0], tokens[:, 0], atol=1e-5, rtol=1e-5)
    other_size = backbone("vit_tiny_16").build(image(64, 32), PlainBuilder())
    load_weights(other_size, tmp_path / "w.pt")  # the position embedding is resized


def test_attention_at_the_start_leaves_a_trained_network_as_it_is() -> None:
    x = torch.randn(2, 3, 64, 32)
    plain = backbone("resnet18", 0.25).build(X, PlainBuilder()).eval()
    for name, cell in ATTENTION.items():
        if name in ("selective", "unselective"):  # these start with a small gain: test_selective_attention.py
            continue
        network = backbone("resnet18", 0.25, attention=lambda stage, cell=cell: cell).build(X, PlainBuilder()).eval()
        own = network.state_dict()
        network.load_state_dict({**own, **plain.state_dict()})
        torch.testing.assert_close(network(x), plain(x), rtol=0, atol=0, msg=name)


def test_weights_for_other_pixel_statistics_see_the_same_image() -> None:
    network = backbone("vit_tiny_16").build(image(32, 32), PlainBuilder()).eval()
    state = {n: v for p in network.modules() if isinstance(p, BackbonePart) for n, v in p.state_dict().items()}
    changed = for_other_pixels(state, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pixels = torch.rand(2, 3, 32, 32)
    theirs = network[0].conv_proj((pixels - 0.5) / 0.5)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    network[0].conv_proj.weight.data.copy_(changed["conv_proj.weight"])
    network[0].conv_proj.bias.data.copy_(changed["conv_proj.bias"])
    torch.testing.assert_close(network[0].conv_proj((pixels - mean) / std), theirs, atol=1e-5, rtol=1e-5)
