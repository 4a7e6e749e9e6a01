"""Settings as people write them: numbers, none, devices, paths of Python."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dnas.cli import main, training
from dnas.data.splits import Split
from dnas.errors import UserError
from dnas.run.config import from_plain
from dnas.run.device import pick_device
from dnas.run.files import read_yaml
from dnas.run.sweep import SweepConfig
from retrain.config import RetrainConfig
from retrain.load import load
from retrain.train import retrain

FIXED = ["--backbone", "resnet18", "--backbone_width", "0.125", "--device", "cpu"]


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "+1e-4", ".1e-3", "1.0e-4", "0.0001"])
def test_numbers_of_yaml(text: str, tmp_path: Path) -> None:
    """As YAML 1.2 has them, in a file as on the command line; and words that only look like it stay words."""
    file = tmp_path / "c.yaml"
    file.write_text(f"optim: {{lr: {text}}}\ndata: 1e4x\nout: e5\nspace: v1e-4\n")
    assert read_yaml(file) == {"optim": {"lr": 1e-4}, "data": "1e4x", "out": "e5", "space": "v1e-4"}
    words = ["--config", str(file), "--backbone", "resnet18"]
    file.write_text(f"optim: {{lr: {text}}}\ndata: d\nout: o\n")
    from_file = training.with_config_files("retrain", ["--config", str(file), "--backbone", "resnet18"])
    assert training.parser("retrain").parse_args(from_file)["optim.lr"] == 1e-4
    assert training.parser("retrain").parse_args([*words, "--optim.lr", text])["optim.lr"] == 1e-4


def test_none_is_null_where_the_help_says_so() -> None:
    parser = training.parser("retrain")
    words = ["--data", "d", "--out", "o", "--backbone", "resnet18", "--weights", "none", "--loss.beta=none"]
    found = parser.parse_args([*words, "--loss.assign", "none", "--attention", "none", "--loss.triplet", "none"])
    assert found["weights"] is found["loss.beta"] is found["loss.assign"] is None
    assert found["attention"] == found["loss.triplet"] == found["train.amp"] == "none"  # words of their own
    with pytest.raises(UserError, match=r"optim\.lr"):
        parser.parse_args([*words, "--optim.lr", "none"])


def test_none_is_null_in_files_too(tmp_path: Path) -> None:
    """For what may be missing, in a retraining, a search and a sweep; elsewhere it is a word, or wrong."""
    file = tmp_path / "c.yaml"

    def parsed(verb: str, text: str, *typed: str) -> dict[str, Any]:
        file.write_text(text)
        words = training.with_config_files(verb, ["--config", str(file), *typed])
        return training.parser(verb).parse_args(["--data=d", "--out=o", *words]).as_flat().__dict__

    text = "backbone: resnet18\nattention: none\nweights: none\nholdout_seed: none\n"
    found = parsed("retrain", text + "loss: {beta: none, assign: none, triplet: none}\ntrain: {amp: none}\n")
    for key in ("weights", "holdout_seed", "loss.beta", "loss.assign"):
        assert found[key] is None, key
    assert found["attention"] == found["loss.triplet"] == found["train.amp"] == "none"
    assert parsed("retrain", text, "--loss.beta", "3", f"--config={file}")["loss.beta"] == 3.0
    assert parsed("search", "weights: w.pth\narch: {weights_only: none}\n")["arch.weights_only"] is None
    assert parsed("search", "arch: {weights_only: 0.5}\n", "--arch.weights_only", "none")["arch.weights_only"] is None
    for text, message in (
        ("optim: {lr: none}", r"c.yaml: optim: lr: found 'none', allowed: a number$"),
        ("loss: {beta: nothing}", r"c.yaml: loss: beta: found 'nothing', allowed: a number or null \(none\)$"),
    ):
        with pytest.raises(UserError, match=message):
            parsed("retrain", text)
    sweep = {"verb": "search", "out": "o", "storage": "none", "settings": {"arch": {"weights_only": None}}}
    config = from_plain(SweepConfig, {**sweep, "vary": {"budget.macs": [None, "none", "3M"]}}, "sweep.yaml")
    assert config.storage is None
    for params, macs in zip(config.combinations(), (None, None, "3M"), strict=True):
        found = training.parser("search").parse_args(["--data=d", "--out=o", *config.words(params)])
        assert (found["arch.weights_only"], found["budget.macs"]) == (None, macs)  # 0.3 where nothing is said


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: chosen[-1] if chosen else 0)
    assert [str(pick_device(name)) for name in ("cpu", "cuda", "auto", "cuda:1")] == [
        "cpu",
        "cuda:0",
        "cuda:0",
        "cuda:1",
    ]
    for name, message in (
        ("cuda:2", "device: 'cuda:2' is not available here, allowed: auto, cuda, cpu, cuda:0, cuda:1"),
        ("gpu", "device: found 'gpu', allowed: auto, cuda, mps, cpu, or a GPU by its number, cuda:1"),
    ):
        with pytest.raises(UserError, match=message):
            pick_device(name)


@pytest.mark.slow
def test_paths_of_python(pedestrians: Path, tmp_path: Path) -> None:
    """A Path where text is meant, in a run that is then read back."""
    settings = {"input": {"height": 16, "width": 16}, "optim": {"identities": 3, "images": 2, "epochs": 1}}
    base = RetrainConfig("d", "o", backbone="resnet18", backbone_width=0.125, device="cpu")
    config = RetrainConfig(
        data=pedestrians, out=tmp_path / "run", backbone="resnet18", backbone_width=0.125, device="cpu",  # type: ignore[arg-type]
        **{key: type(getattr(base, key))(**value) for key, value in settings.items()},
    )  # fmt: skip
    retrain(config)
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["data"] == str(pedestrians)
    assert load(tmp_path / "run").config.data == str(pedestrians)
    assert asdict(load(tmp_path / "run").config)["out"] == str(tmp_path / "run")
    assert Split.of([("a.jpg", 1, 2)]).files == (Path("a.jpg"),)


def test_an_identity_of_more_than_eight_digits(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "123456789_c1s1_000001_00.jpg").write_bytes(b"")
    assert main(["retrain", "--data", str(tmp_path), "--out", str(tmp_path / "o"), *FIXED]) == 2
    assert "123456789_c1s1_000001_00.jpg: file name does not parse; " in (error := capsys.readouterr().err)
    assert "(an identity of up to 8 digits, or -1)" in error
