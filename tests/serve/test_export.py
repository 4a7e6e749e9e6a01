"""Exported files compute what torch does, at every batch size, for every kind of module; and say how to use them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dnas.cli import main
from dnas.errors import UserError
from dnas.nn.attention import ATTENTION
from dnas.nn.cell_operations import Pool, SeparableConv
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.inverted_residual import InvertedResidual
from dnas.nn.mobilenet import MobileNetConv, MobileNetStage
from dnas.nn.osnet import OSNetHead, OSNetStage, OSNetStem
from dnas.nn.reid_net import ReIDNet
from dnas.nn.resnet import ResNetStage, ResNetStem
from dnas.nn.swin import SwinNorm, SwinPatches, SwinStage
from dnas.nn.vit import ClassToken, PatchTokens, TransformerStage
from dnas.serve.export import check, exports_onnx, refusal, write
from dnas.serve.exportable import Exportable, fold, traced
from dnas.serve.interface import Interface, interface_of
from dnas.serve.load import load
from dnas.serve.prepare import Prepare
from dnas.space.spec import Spec, fill, image
from search_spaces.cells_reid import cells_reid
from tests.spaces import random_choices

ONNX = pytest.mark.skipif(not exports_onnx(), reason="torch 2.6 exports no ONNX")
ROOT = Path(__file__).parent.parent.parent
CELLS = cells_reid("cells", (6,), "NR", 8, 8, 24)
NETWORKS: dict[str, Spec] = {
    "attention": Chain((ConvNormAct(8, 3, 2), *ATTENTION.values(), DCSAttention(stride=2), InvertedResidual(12, 3, 2))),
    "cells": Chain((fill(CELLS.spec, random_choices(CELLS, 3)), SeparableConv(3, 2), Pool("max", 1))),
    "mobilenet": Chain((MobileNetConv(8, 3, 2), MobileNetStage(1, 12, 1, 2, 2))),
    "osnet": Chain((OSNetStem(8, True), OSNetStage(2, 16, blocks=1, reduce=True), OSNetHead(16, 32))),
    "resnet": Chain((ResNetStem(8, True), ResNetStage(1, 8, 1, 2, True))),
    "swin": Chain((SwinPatches(32, 2), SwinStage(1, 32, 2, 1, False), SwinStage(3, 64, 1, 2, True), SwinNorm())),
    "vit": Chain((PatchTokens(24, 8, 6), TransformerStage(0, 1, 3, select=True), ClassToken())),
}
"""Every kind of module is in one of them."""


def alive(spec: Spec, height: int, width: int) -> ReIDNet:
    """A network whose vectors depend on the picture, as after a training: attention branches included."""
    torch.manual_seed(0)
    net = ReIDNet(spec, image(height, width), 5)
    for name, parameter in net.named_parameters():
        if name.endswith("norm.weight") or ".gain" in name:
            nn.init.uniform_(parameter, 0.5, 1.0)
        if ".logits." in name:  # of a selection: about half of the channels
            nn.init.normal_(parameter, std=0.5)
    for norm in (module for module in net.modules() if isinstance(module, _BatchNorm)):
        norm.momentum = 1.0  # else a deep network puts out the same for every picture
    net.train()
    with torch.no_grad():
        for _ in range(3):
            coarse = torch.randn(8, 3, 4, 3)
            net(nn.functional.interpolate(coarse, (height, width), mode="bilinear"))
    return net.eval()


def exported(
    spec: Spec, file: Path, prepare: Prepare | None = None, size: tuple[int, int] = (32, 16)
) -> dict[str, float]:
    """What the check of a file says about it."""
    net = alive(spec, *size)
    module = Exportable(net, prepare=prepare).requires_grad_(False).eval()
    interface = Interface("0" * 64, "test", *size, len(net.neck.weight), "cosine", False, prepared=prepare is not None)
    write(traced(module, *size), interface, file)
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (4, 3, 3), dtype=np.uint8)) for _ in range(7)]
    pictures = [picture.resize((30, 70), Image.Resampling.BICUBIC) for picture in coarse]
    vectors = load(file).embed(pictures)
    assert float(np.abs(vectors[0] - vectors[1:]).max(1).min()) > 1e-3  # else agreement would say nothing
    return check(file, module, interface, pictures)


@ONNX
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_module(name: str, tmp_path: Path) -> None:
    import onnx

    found = exported(NETWORKS[name], tmp_path / "net.onnx")
    assert found["difference"] < 5e-6
    assert found["cosine"] > 0.99999
    nodes = onnx.load(tmp_path / "net.onnx").graph.node
    convolutions = {output for node in nodes if node.op_type == "Conv" for output in node.output}
    assert convolutions
    assert not [node for node in nodes if node.op_type == "BatchNormalization" and node.input[0] in convolutions]


@pytest.mark.parametrize("suffix", [pytest.param(".onnx", marks=ONNX), ".pt2"])
def test_preparation_in_the_file(suffix: str, tmp_path: Path) -> None:
    found = exported(NETWORKS["resnet"], tmp_path / f"net{suffix}", Prepare(32, 16))
    assert found["difference"] < 5e-6
    assert 0 < found["rounding"] < 2e-6
    assert found["cosine"] > 0.9999


def test_what_torch_rounds_by_is_allowed() -> None:
    good = {"difference": 2e-4, "rounding": 2e-5, "cosine": 1.0}
    assert refusal(good, "fp32") is None
    assert refusal({**good, "rounding": 1e-6}, "fp32") == "differs from torch by 2.0e-04, allowed: 1e-04"
    assert refusal({**good, "rounding": 1e-6}, "fp16") is None
    assert refusal({**good, "difference": float("nan")}, "fp32") is not None
    assert "cosine" in (refusal({**good, "cosine": 0.99}, "fp32") or "")


def norms_after_convolutions(program: torch.export.ExportedProgram) -> list[str]:
    found = [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    return [str(norm) for norm in found if "conv" in str(norm.args[0].target)]


@pytest.mark.parametrize("name", ["osnet", "resnet"])
def test_folding(name: str) -> None:
    """The same function without the norms, but for a convolution that two norms follow in turn."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norms = nn.Conv2d(3, 3, 1), nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for norm in self.norms:
                x = norm(self.conv(x))
            return x

    twice = Twice()
    twice(torch.randn(2, 3, 8, 8))
    for module, x, left in (
        (Exportable(alive(NETWORKS[name], 32, 16)), torch.randn(3, 3, 32, 16), 0),
        (twice, torch.randn(3, 3, 8, 8), 2),
    ):
        program = torch.export.export(module.requires_grad_(False).eval(), (x,))
        assert norms_after_convolutions(program)
        fold(program)
        assert len(norms_after_convolutions(program)) == left
        torch.testing.assert_close(program.module()(x), module(x), atol=2e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def run(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["--data", str(pedestrians), "--out", str(folder), "--backbone", "resnet18", "--backbone_width", "0.125"]
    words += ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.identities", "3"]
    words += ["--optim.images", "2", "--optim.epochs", "2", "--attention", "dcs", "--backbone_small", "true"]
    assert main(["retrain", *words, "--flip_average", "true", "--test", "false"]) == 0
    return folder


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@ONNX
@pytest.mark.slow
def test_by_command(run: Path, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both precisions keep the mAP; the interface says what the file is; the file embeds like the run."""
    for name, words in (("a.onnx", []), ("half.onnx", ["--precision", "fp16", "--raw"])):
        file = tmp_path / name
        assert main(["export", str(run), "-o", str(file), "--data", str(pedestrians), "--json", *words]) == 0
        found = last_json(capsys)
        assert found["mAP"]["file"] == pytest.approx(found["mAP"]["torch"], abs=0.02)
        interface = json.loads((tmp_path / f"{name}.json").read_text())
        assert (interface["height"], interface["width"], interface["flip_average"], interface["prepared"]) == (
            32,
            16,
            True,
            not words,
        )
        assert interface["data"]["sha256"] == json.loads((run / "data.json").read_text())["sha256"]
    assert (tmp_path / "half.onnx").stat().st_size < 0.7 * (tmp_path / "a.onnx").stat().st_size
    pictures = sorted((pedestrians / "query").glob("*.jpg"))[:3]
    by_run, by_file, by_half = (load(p) for p in (run, tmp_path / "a.onnx", tmp_path / "half.onnx"))
    assert by_run.interface.network == by_file.interface.network == by_half.interface.network
    np.testing.assert_allclose(by_run.embed(pictures), by_file.embed(pictures), atol=1e-5)
    assert float((by_run.embed(pictures) * by_half.embed(pictures)).sum(1).min()) > 0.999
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.slow
def test_a_program_is_taken_like_a_run(
    run: Path, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A .pt2 file embeds, fills a gallery and finds; but is not run because the gallery names it."""
    pictures = [str(file) for file in sorted((pedestrians / "query").glob("*.jpg"))[:9]]
    for name, words in (("raw.pt2", ["--raw"]), ("net.pt2", [])):
        assert main(["export", str(run), "-o", str(tmp_path / name), *words]) == 0
        assert main(["embed", str(tmp_path / name), *pictures, "-o", str(tmp_path / "v.npz")]) == 0
        np.testing.assert_allclose(np.load(tmp_path / "v.npz")["vectors"], load(run).embed(pictures), atol=1e-4)
    file, gallery = str(tmp_path / "net.pt2"), str(tmp_path / "gallery")
    assert not norms_after_convolutions(torch.export.load(file))
    assert main(["index", file, *pictures, "-o", gallery]) == 0
    capsys.readouterr()
    assert main(["find", gallery, pictures[0]]) == 2
    assert "made by ../net.pt2, which can run code: name it yourself (--network FILE)" in capsys.readouterr().err
    for network in (file, str(run)):
        assert main(["find", gallery, pictures[0], "-k", "1", "--network", network]) == 0
        assert Path(pictures[0]).name in capsys.readouterr().out


@pytest.mark.slow
@ONNX
def test_a_file_that_prepares_otherwise_is_refused(tmp_path: Path) -> None:
    """Here: one that takes the colours in another order."""

    class Reversed(Prepare):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return super().forward(pixels.flip(3))

    found = exported(NETWORKS["resnet"], tmp_path / "net.onnx", Reversed(32, 16))
    assert "cosine" in (refusal(found, "fp32") or "")


def test_a_torch_without_onnx(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0+cu124")
    assert main(["export", str(tmp_path), "-o", "a.onnx"]) == 2
    assert "output: .onnx needs torch 2.7 or newer, found 2.6.0+cu124; .pt2 does not" in capsys.readouterr().err


@pytest.mark.slow
def test_a_refused_file_is_not_left(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dnas.serve.export.COSINE", 1.1)
    assert main(["export", str(run), "-o", str(tmp_path / "a.pt2")]) == 2
    assert "a.pt2: not written: cosine 1.0000" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bad_input_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged, other, cut = (tmp_path / name for name in ("damaged.onnx", "other.pt2", "cut.pt2"))
    damaged.write_bytes(b"onnx" * 100)
    cut.write_bytes(b"PK" * 100)
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(1),)), other)
    (folder := tmp_path / "folder.pt2").mkdir()
    neither = tmp_path / "net.jpg"
    neither.write_bytes(b"")
    for words, message in (
        ([str(run), "-o", "a.tflite"], "cannot write '.tflite', allowed: .onnx, .pt2"),
        ([str(run), "-o", "a.pt2", "--images", "x.jpg"], "images: found 1, needed to check the file: 7"),
        ([str(tmp_path), "-o", "a.pt2"], "not a run folder"),
        ([str(run), "-o", str(folder)], "folder.pt2 is a folder"),
    ):
        assert main(["export", *words]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error
    for path, message in (
        (damaged, "cannot be read as an ONNX file"),
        (cut, r"cannot be read as a \.pt2 file"),
        (other, "no network that this program exported"),
        (neither, r"expected the folder of a retraining, or an exported \.onnx or \.pt2 file"),
        (tmp_path / "no.onnx", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            load(path)
    with pytest.raises(UserError, match=r"found 'cuda', allowed for a \.pt2 file: auto, cpu"):
        load(other, "cuda")


@ONNX
@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--raw"]])
def test_the_program_of_the_document(run: Path, pedestrians: Path, tmp_path: Path, words: list[str]) -> None:
    """With onnxruntime and the sidecar alone: the package cannot be imported there."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.S)
    assert "import dnas" not in blocks[0]
    file, program = tmp_path / "net.onnx", tmp_path / "program.py"
    program.write_text("import sys\nsys.modules['dnas'] = None\n" + blocks[0])
    assert main(["export", str(run), "-o", str(file), *words]) == 0
    pictures = [str(picture) for picture in sorted((pedestrians / "query").glob("*.jpg"))[:3]]
    done = subprocess.run(
        [sys.executable, str(program), str(file), *pictures], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), load(run).embed(pictures), atol=1e-4)


def test_odd_sidecars_are_one_line() -> None:
    """What is not an interface, as a whole. (`tools/fuzz.py` tries odd entries.)"""
    good = Interface("0" * 64, "net", 32, 16, 8, "cosine", False).plain()
    assert interface_of(good, "x").plain() == good
    for wrong in ([], "x", None, {}, {**good, "further": 1}, {k: v for k, v in good.items() if k != "network"}):
        with pytest.raises(UserError, match="file: "):
            interface_of(wrong, "file")
