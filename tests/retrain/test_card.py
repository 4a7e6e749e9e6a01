"""The model card: its front matter, its numbers, and words of strangers in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from dnas.cli import main


@pytest.fixture(scope="module")
def seeds(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one model, and another model."""
    out = tmp_path_factory.mktemp("runs")
    words = [
        "--data",
        str(pedestrians),
        "--device",
        "cpu",
        "--input.height",
        "32",
        "--input.width",
        "16",
        "--holdout",
        "0.4",
    ]
    words += ["--optim.epochs", "1", "--optim.identities", "2", "--optim.images", "2", "--backbone", "resnet18"]
    for name, more in (("0", []), ("1", ["--seed", "1"]), ("other", ["--attention", "se"])):
        assert main(["retrain", *words, "--backbone_width", "0.125", "--out", str(out / name), *more]) == 0
    return [out / name for name in ("0", "1", "other")]


def test_a_card_says_what_was_measured(seeds: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    assert main(["card", *map(str, seeds[:2]), "-o", str(file)]) == 0
    _, head, body = file.read_text().split("---\n", 2)
    meta = yaml.safe_load(head)
    (result,) = meta["model-index"][0]["results"]
    maps = [json.loads((folder / "summary.json").read_text())["test"]["mAP"] for folder in seeds[:2]]
    assert result["metrics"][0]["value"] == pytest.approx(np.mean(maps), abs=1e-4)
    assert result["dataset"]["revision"] == json.loads((seeds[0] / "data.json").read_text())["sha256"]
    assert f"| mAP | {100 * np.mean(maps):.1f} ± {100 * np.std(maps, ddof=1):.1f} % |" in body
    assert [line[3:] for line in body.splitlines() if line.startswith("## ")] == [
        "What it is", "Data", "Results", "Training", "Intended use", "Limits"
    ]  # fmt: skip
    assert str(tmp_path.parent) not in head + body  # no path of this machine
    low, high = (float(word) for word in body.split("95 % interval | ")[1].split(" %")[0].split(" to "))
    assert low < 100 * np.mean(maps) < high


def test_what_is_refused(seeds: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([seeds[0], seeds[2]], "card: found 2 models, allowed: one, with several seeds"),
        ([tmp_path], "not a run folder"),
        ([seeds[0], "-o", tmp_path / "card.pdf"], "cannot write '.pdf', allowed: .md"),
    ):
        assert main(["card", *map(str, words)]) == 2
        assert message in capsys.readouterr().err


def test_names_from_strangers_are_text(seeds: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    name = "a|b\n---\n<script>\x1b"
    data = json.loads((seeds[2] / "data.json").read_text())
    (seeds[2] / "data.json").write_text(json.dumps({**data, "name": name}))
    capsys.readouterr()
    assert main(["card", str(seeds[2])]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"][0]["dataset"]["name"].startswith(
        "a|b\\n"
    )
    assert "<script>" not in text.split("---\n", 2)[2]
    assert "\x1b" not in text
