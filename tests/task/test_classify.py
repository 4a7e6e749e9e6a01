"""Classification by the whole road of the command line; what has no meaning there is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dnas.cli import main
from dnas.data.images import Images
from dnas.eval.classify import answers
from dnas.nn.backbones import backbone
from dnas.nn.classify_net import ClassifyNet
from dnas.run.folder import RunFolder
from dnas.space.spec import image
from retrain.load import load
from tests.data.test_classes import pictures

SMALL = ["--task", "classify", "--device", "cpu", "--input.height", "32", "--input.width", "32", "--optim.batch", "8"]
SMALL += ["--optim.epochs", "2", "--optim.warmup", "0", "--loss.eta_warmup", "0"]
FIXED = ["--backbone", "resnet18", "--backbone_width", "0.125", "--backbone_small", "true", "--attention", "se"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("classes") / "set", {"a": 10, "b": 10, "c": 10})


def test_answers_agree_with_the_formulas() -> None:
    torch.manual_seed(0)
    net = ClassifyNet(backbone("resnet18", 0.125, small=True), image(16, 16), 3)
    pixels = torch.randint(0, 256, (7, 16, 16, 3), dtype=torch.uint8)
    labels = np.array([0, 1, 2, 2, 1, 1, 1])
    images = Images(pixels, torch.arange(7), torch.from_numpy(labels), labels + 1, np.zeros(7, np.int64))
    found = answers(net.train(), images, labels, batch=3)
    assert net.training
    net.eval()
    logits = torch.cat([net(x).logits_BC for x in images.batches(7, torch.device("cpu"))]).detach()
    right = [int(row.argmax()) == label for row, label in zip(logits, labels, strict=True)]
    metrics = found.metrics()
    assert metrics["top1"] == pytest.approx(sum(right) / 7)
    shares = [
        sum(r for r, label in zip(right, labels, strict=True) if label == c) / (labels == c).sum() for c in range(3)
    ]
    assert metrics["mean_class"] == pytest.approx(sum(shares) / 3)
    assert metrics["loss"] == pytest.approx(float(F.cross_entropy(logits, torch.from_numpy(labels))), abs=1e-5)
    assert found.by_class(4)[3] is None


@pytest.mark.slow
def test_the_whole_road(classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search, found, fixed = (str(tmp_path / name) for name in ("search", "found", "fixed"))
    words = [*SMALL, "--data", str(classes), "--holdout", "0.25"]
    assert main(["search", *words, "--out", search, "--space", "tiny_reid", "--arch.weights_only", "0"]) == 0
    assert "18 training and 6 held-out images of 3 classes" in capsys.readouterr().out
    assert main(["retrain", *words, "--out", found, "--genotype", search]) == 0
    assert main(["retrain", *words, "--out", fixed, *FIXED]) == 0
    genotype = RunFolder(search).json("genotype.json")["search"]
    assert genotype["metric"] == "top1"
    assert set(genotype["held_out"]) == {"top1", "mean_class", "loss"}
    capsys.readouterr()
    assert main(["eval", fixed, "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out.splitlines()[-1])
    summary = RunFolder(fixed).json("summary.json")
    assert evaluated["test"] == pytest.approx(summary["test"])
    fewer = pictures(tmp_path / "fewer", {"b": 10, "c": 10})
    assert main(["eval", fixed, "--data", str(fewer)]) == 2  # they would be counted as a and b
    said = capsys.readouterr().err
    assert "found the classes b, c, allowed: those that the network was trained on, a, b, c" in said
    again = pictures(tmp_path / "again", {"a": 10, "b": 10, "c": 10})
    assert main(["eval", fixed, "--data", str(again)]) == 0
    staged = str(tmp_path / "staged")
    assert main(["retrain", *words, "--out", staged, *FIXED, "--loss.ibb_on", "attention"]) == 0
    assert main(["eval", staged]) == 0
    score, _ = load(fixed, "cpu").task().scores(Path(fixed))
    assert score.mean() == summary["test"]["top1"]
    assert main(["compare", found, fixed, "-o", str(tmp_path / "c.png"), "--table", str(tmp_path / "c.md")]) == 0
    table = (tmp_path / "c.md").read_text()
    assert "top-1 (%)" in table
    assert "difference in top-1 (points), 95 % interval: paired bootstrap over test images" in table
    for kind in ("training", "gradcam", "plane", "channels"):
        assert main(["draw", kind, fixed, "-o", str(tmp_path / f"{kind}.png"), "--images", "2"]) == 0
    assert main(["draw", "course", search, "-o", str(tmp_path / "course.png")]) == 0
    assert main(["probe", fixed]) == 0
    assert main(["report", search, found, "-o", str(tmp_path / "r.html"), "--images", "2"]) == 0
    assert "not drawn" not in (tmp_path / "r.html").read_text()
    capsys.readouterr()
    for words, said in (
        (["draw", "ranked", fixed, "-o", "x.png"], "a run of task classify has no ranked lists"),
        (["draw", "cmc", fixed, "-o", "x.png"], "a network for image classification ranks no gallery"),
        (["eval", fixed, "--rerank"], "rerank: found True, allowed for a run of task reid alone"),
        (["calibrate", fixed], "task"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--loss.triplet", "hard"], "loss.triplet: found hard, allowed with task classify: none"),
        (["--flip_average", "true"], "flip_average: found True, allowed with task classify: False"),
        (["--distance", "euclidean"], "distance: found euclidean, allowed with task classify: cosine"),
        (["--loss.centre", "0.1"], "loss.centre: found 0.1, allowed with task classify: 0"),
        (["--task", "segment"], "task: found 'segment', allowed: reid, classify"),
        (["--data", "nowhere"], "data: nowhere: no such folder; expected a folder a class, or a CSV file"),
    ],
)
def test_what_is_refused(
    words: list[str], said: str, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retrain", *SMALL, "--data", str(classes), "--out", str(tmp_path / "r"), *FIXED, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_tasks_are_not_compared(
    classes: Path, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*FIXED, "--device", "cpu", "--optim.epochs", "1", "--input.height", "32", "--input.width", "16"]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert (
        main(["retrain", *small, "--task", "classify", "--data", str(classes), "--out", one, "--optim.batch", "8"]) == 0
    )
    reid = ["--data", str(pedestrians), "--out", two, "--optim.identities", "3", "--optim.images", "2"]
    assert main(["retrain", *small, *reid]) == 0
    for more in ([], ["--mixed"]):
        assert main(["compare", one, two, *more]) == 2
        assert "their numbers have nothing in common" in capsys.readouterr().err
