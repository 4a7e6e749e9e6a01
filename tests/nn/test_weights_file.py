"""Files of weights as other programs write them, and what is no file of weights."""

import re
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, mobilenet_v2, resnet18

from dnas.errors import UserError
from dnas.nn.backbones import backbone
from dnas.nn.builder import PlainBuilder
from dnas.nn.pretrained import BackbonePart, load_weights
from dnas.nn.weight_names import TIMM
from dnas.space.spec import image

X = image(64, 32)


def test_files_of_other_toolkits_load(tmp_path: Path) -> None:
    """State dicts inside a checkpoint, of a parallel module, and of timm's vision transformers."""
    state = resnet18().state_dict()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, tmp_path / "w.pt"
    )
    ours = backbone("resnet18").build(X, PlainBuilder())
    load_weights(ours, tmp_path / "w.pt")
    assert torch.equal(ours[0].conv1.weight, state["conv1.weight"])
    vit = VisionTransformer(image_size=32, patch_size=16, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=768)
    back = {new: old for old, new in TIMM}
    timm = {}
    for name, value in vit.state_dict().items():
        for new, old in sorted(back.items(), key=lambda pair: -len(pair[0])):
            name = name.replace(new, old)
        timm[name.replace("encoder.ln.", "norm.")] = value
    assert "blocks.3.attn.qkv.weight" in timm
    torch.save(timm, tmp_path / "t.pt")
    ours = backbone("vit_tiny_16").build(image(32, 32), PlainBuilder())
    load_weights(ours, tmp_path / "t.pt")
    own = {
        name: value
        for part in ours.modules()
        if isinstance(part, BackbonePart)
        for name, value in part.state_dict().items()
    }
    assert all(torch.equal(own[name], value) for name, value in vit.state_dict().items() if "heads" not in name)


def test_old_files_load(tmp_path: Path) -> None:
    """Published files lack batch-norm counters and name a transformer's layers linear_1 and linear_2."""
    state = {name: tensor for name, tensor in resnet18().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "w.pt")
    ours = backbone("resnet18").build(X, PlainBuilder())
    load_weights(ours, tmp_path / "w.pt")
    assert torch.equal(ours[0].conv1.weight, state["conv1.weight"])
    vit = VisionTransformer(image_size=32, patch_size=16, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=768)
    old = {
        n.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for n, t in vit.state_dict().items()
    }
    assert any("linear_2" in name for name in old)
    torch.save(old, tmp_path / "v.pt")
    load_weights(backbone("vit_tiny_16").build(image(32, 32), PlainBuilder()), tmp_path / "v.pt")


def test_files_of_other_programs_load(tmp_path: Path) -> None:
    """torchreid's with a number of numpy, wrapped state dicts, fast-reid's names: all tensors, and what is left out."""
    state = resnet18().state_dict()
    head = {"heads.weight": torch.zeros(5, 512), "heads.bottleneck.0.bias": torch.zeros(512)}
    inside = {f"backbone.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    files: dict[str, tuple[object, str]] = {
        "model.pth.tar": (
            {"state_dict": state, "epoch": 60, "rank1": np.float64(0.93), "step": np.int64(7)},
            "120 tensors loaded, 2 left out (fc.weight, fc.bias)",
        ),
        "net.pt": (
            {"net": {f"module.{n}": v for n, v in state.items()}, "acc": np.float32(1)},
            "120 tensors loaded, 2",
        ),
        "nested.pt": ({"model": {"state_dict": state}, "args": {"lr": 1}}, "120 tensors loaded, 2 left out"),
        "fast.pth": (
            {"model": {**inside, **head}, "iteration": 3},
            "120 tensors loaded, 2 left out (heads.weight, heads.",
        ),
    }
    for name, (content, said) in files.items():
        torch.save(content, tmp_path / name)
        ours = backbone("resnet18").build(X, PlainBuilder())
        assert f"weights: {tmp_path / name}: {said}" in str(load_weights(ours, tmp_path / name))
        own = {n: v for p in ours.modules() if isinstance(p, BackbonePart) for n, v in p.state_dict().items()}
        assert all(torch.equal(own[n], value) for n, value in state.items() if not n.startswith("fc.")), name


def test_old_mobilenet_names_load(tmp_path: Path) -> None:
    """torchvision's of old, as in other people's files: features.1.conv.3.weight is features.1.conv.1.weight now."""
    state = mobilenet_v2().state_dict()
    old = {}
    for name, value in state.items():
        words = name.split(".")
        if words[0] == "features" and words[2] == "conv":
            wide = f"features.{words[1]}.conv.3.weight" in state
            layer = ".".join(words[3:-1])
            layers = {"0.0": 0, "0.1": 1, **({"1.0": 3, "1.1": 4, "2": 6, "3": 7} if wide else {"1": 3, "2": 4})}
            name = ".".join([*words[:3], str(layers[layer]), words[-1]])
        old[name] = value
    assert old["features.1.conv.3.weight"].shape == (16, 32, 1, 1)
    assert len(old) == len(state)
    torch.save(old, tmp_path / "old.pt")
    ours = backbone("mobilenet_v2").build(X, PlainBuilder())
    assert "312 tensors loaded, 2 left out (classifier.1.weight, classifier.1.bias)" in str(
        load_weights(ours, tmp_path / "old.pt")
    )
    own = {n: v for p in ours.modules() if isinstance(p, BackbonePart) for n, v in p.state_dict().items()}
    assert all(torch.equal(own[n], value) for n, value in state.items() if not n.startswith("classifier"))


def test_what_is_no_state_dict_says_how_to_convert(tmp_path: Path) -> None:
    network, file = backbone("resnet18").build(X, PlainBuilder()), tmp_path / "whole.pth"
    ibn = {"backbone.layer1.0.bn1.IN.weight": torch.ones(4), "backbone.layer1.0.bn1.BN.weight": torch.ones(4)}
    for content, message in (
        (nn.Linear(2, 2), r"whole.pth: holds a Python object \(torch.nn.modules.linear.Linear\), .*weights_only=False"),
        ({"state_dict": {"a": torch.ones(1)}, "best": Fraction(1, 2)}, r"holds a Python object \(fractions.Fraction\)"),
        ({"epoch": 3}, "expected a mapping of names to tensors, by itself or as state_dict, found epoch"),
        ({"a": torch.ones(1), "inner": {"b": 1}}, "expected a mapping of names to tensors, .* found a, inner"),
        (ibn, "is of a ResNet with instance-batch normalisation"),
    ):
        torch.save(content, file)
        with pytest.raises(UserError, match=message) as caught:
            load_weights(network, file)
        assert "x1b" not in str(caught.value)  # torch makes some of its words bold
    for damaged, reason in (
        (b"not weights", "Unsupported operand 110"),
        (b"", "EOFError"),
        ((tmp_path / "whole.pth").read_bytes()[:200], "PytorchStreamReader failed .* central directory"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"whole.pth: not a PyTorch state dict \({reason}\)$"):
            load_weights(network, file)


@pytest.mark.slow
def test_how_a_file_was_written_is_no_riddle(tmp_path: Path) -> None:
    """Pickle protocol 3 is read, in silence; of 4 and 5 torch reads no tensors alone: how to write it anew is said."""
    network, file = backbone("resnet18").build(X, PlainBuilder()), tmp_path / "w.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save({"epoch": 1, **resnet18().state_dict()}, file, pickle_protocol=3)
        load_weights(network, file)
        torch.save({"epoch": 1, **resnet18().state_dict()}, file, pickle_protocol=4)
        again = r"w.pth: was written with pickle protocol 4, .* write it anew: (import torch; .*)$"
        with pytest.raises(UserError, match=again) as caught:
            load_weights(network, file)
    found = re.search(again, str(caught.value))
    assert found is not None
    subprocess.run([sys.executable, "-W", "ignore", "-c", found[1]], cwd=tmp_path, check=True)
    load_weights(network, tmp_path / "tensors.pth")


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    network = backbone("resnet18").build(X, PlainBuilder())
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
