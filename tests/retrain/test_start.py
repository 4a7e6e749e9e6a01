"""Starting from one's own run with another head."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dnas.cli import main
from dnas.run.folder import RunFolder
from tests.searches import BY_LOGITS

SMALL = ["--optim.identities", "3", "--optim.images", "2", "--device", "cpu", "--optim.epochs", "1"]
SIZE = ["--input.height", "32", "--input.width", "16"]


def run(*words: object) -> int:
    return main([str(word) for word in words])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = RunFolder(folder).load()["net"]
    return found


def test_settings_of_a_backbone_want_one(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They did nothing where the network is that of a genotype or of a run."""
    words = ["--data", pedestrians, *SMALL, "--out", tmp_path / "x", "--weights", tmp_path]
    assert run("retrain", *words, "--backbone_width", 0.5) == 2
    assert "backbone_width: found 0.5, allowed with --backbone" in capsys.readouterr().err


@pytest.mark.slow
def test_from_a_run_to_other_identities(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its network without saying which, its weights but the classifier; and the run goes on without the first one."""
    first, second = tmp_path / "first", tmp_path / "second"
    words = ["--data", pedestrians, *SMALL, "--optim.lr", 0]
    network = ["--backbone", "resnet18", "--backbone_width", 0.125, "--attention", "dcs"]
    assert run("retrain", *words, *SIZE, *network, "--out", first) == 0
    assert run("retrain", *words, "--seed", 1, "--holdout", 0.4, "--weights", first, "--out", second) == 0
    old, new = weights(first), weights(second)
    assert len(old["classifier.weight"]) == len(new["classifier.weight"]) + 2
    kept = [name for name in old if "running_" not in name and "num_batches" not in name and "classifier" not in name]
    assert all(torch.equal(old[name], new[name]) for name in kept)
    said = f"weights: {first}: {len(old) - 1} tensors loaded, 1 left out (classifier.weight)"
    assert said in (second / "log.txt").read_text()
    assert json.loads((second / "summary.json").read_text())["start"] == "weights"
    assert "height: 32" in (second / "config.yaml").read_text()
    shutil.rmtree(first)
    assert run("retrain", "--resume", second) == 0
    capsys.readouterr()
    for more, message in (
        (["--weights", tmp_path / "none.pth"], "none.pth: is no folder of a run; say which network: --backbone NAME"),
        (
            ["--weights", second, "--backbone", "resnet18"],
            "is another network: entry 'backbone.0.conv1.weight' has shape",
        ),
        (["--weights", second, *network[:4]], "has no place in this one"),
    ):
        assert run("retrain", *words, *SIZE, *more, "--out", tmp_path / "x") == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_searched_network_and_a_transformer_of_another_size(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", pedestrians, *SMALL, "--optim.lr", 0]
    assert run("search", *words, *SIZE, *BY_LOGITS, "--holdout", 0.4, "--out", tmp_path / "search") == 0
    assert run("retrain", *words, "--genotype", tmp_path / "search", "--out", tmp_path / "a") == 0
    assert run("retrain", *words, "--seed", 1, "--weights", tmp_path / "a", "--out", tmp_path / "b") == 0
    old, new = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(old[name], new[name]) for name in old if name.endswith("conv.weight"))
    assert run("retrain", *words, "--weights", tmp_path / "search", "--out", tmp_path / "x") == 2
    assert "expected a retraining, found a search" in capsys.readouterr().err
    vit = ["--backbone", "vit_tiny_16", "--backbone_width", 0.1, "--backbone_small", "true"]
    assert run("retrain", *words, *SIZE, *vit, "--out", tmp_path / "v") == 0
    more = ["--weights", tmp_path / "v", "--input.height", 64, "--out", tmp_path / "taller"]
    assert run("retrain", *words, *more) == 0
    assert "positions resized from 4 x 2 to 8 x 2 patches" in (tmp_path / "taller/log.txt").read_text()
