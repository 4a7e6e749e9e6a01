"""The files of docs/extending.md run: a task, an estimator, an attention cell and a backbone of one's own."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dnas.cli import main
from dnas.cli.own import _kinds, register
from dnas.nn.attention import attention
from dnas.nn.backbones import backbone
from dnas.nn.reid_net import ReIDNet
from dnas.nn.sites import sites_of
from dnas.run.folder import RunFolder
from dnas.space.spec import image
from tests.searches import BY_LOGITS

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "docs/extending.md").read_text(), re.S)
NAMES = ("balanced", "dirichlet", "strongest", "plain")
SMALL = ["--device", "cpu", "--input.height", "32", "--input.width", "32", "--optim.epochs", "2", "--optim.warmup", "0"]
REID = ["--optim.identities", "3", "--optim.images", "2"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The document's files by name; what they register is forgotten afterwards."""
    before = {kind: dict(known) for kind, (known, _, _) in _kinds().items()}
    files = {}
    for name, block in zip(NAMES, BLOCKS, strict=True):
        assert len(block.splitlines()) < 60
        (tmp_path / f"{name}.py").write_text(block)
        files[name] = str(tmp_path / f"{name}.py")
    yield files
    for kind, (known, _, _) in _kinds().items():
        known.clear()
        known.update(before[kind])


def uneven(root: Path) -> Path:
    """Two classes of 16 and 6 pictures that differ in their colour."""
    rng = np.random.default_rng(0)
    for name, count, colour in (("red", 16, (200, 60, 60)), ("blue", 6, (60, 60, 200))):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_a_task(own: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, search, found = uneven(tmp_path / "data"), tmp_path / "search", tmp_path / "found"
    words = [*SMALL, f"--own={own['balanced']}", "--task", "balanced", "--data", str(data), "--optim.batch", "6"]
    more = [*BY_LOGITS, "--holdout", "0.3", "--arch.weights_only", "0"]
    assert main(["search", *words, *more, "--out", str(search)]) == 0
    assert main(["retrain", *words, "--out", str(found), "--genotype", str(search), "--holdout", "0.3"]) == 0
    summary = RunFolder(found).json("summary.json")
    assert (summary["task"], summary["metric"]) == ("balanced", "mean_class")
    by_class = summary["by_class"]
    assert summary["test"]["mean_class"] == pytest.approx(sum(by_class.values()) / 2)
    assert main(["compare", str(found), "--own", own["balanced"]]) == 0
    assert main(["eval", str(found), "--own", own["balanced"]]) == 0
    from dnas.task import TASKS

    score, label = TASKS["balanced"].scores(found)
    assert score.mean() == pytest.approx(summary["test"]["mean_class"])
    assert set(label.tolist()) == {0, 1}
    del TASKS["balanced"]
    capsys.readouterr()
    assert main(["eval", str(found)]) == 2
    assert "task: found 'balanced', allowed: reid, classify" in capsys.readouterr().err


@pytest.mark.slow
def test_an_estimator(own: dict[str, str], pedestrians: Path, tmp_path: Path) -> None:
    words = [*SMALL, *REID, *BY_LOGITS, "--data", str(pedestrians)]
    words += ["--own", own["dirichlet"], "--arch.mode", "dirichlet"]
    for out in ("one", "again"):
        code = main(["search", *words, "--out", str(tmp_path / out), "--holdout", "0.4", "--arch.weights_only", "0"])
        assert code == 0
    rows = [RunFolder(tmp_path / out).rows() for out in ("one", "again")]
    assert rows[0] == rows[1]  # the draws are a function of the seed
    first, last = (rows[0][n]["probabilities"] for n in (0, -1))
    assert first != last  # the logits learn


def test_an_attention_cell_on_a_backbone(own: dict[str, str], pedestrians: Path, tmp_path: Path) -> None:
    words = [*SMALL, *REID, "--data", str(pedestrians), "--own", own["strongest"], "--own", own["plain"]]
    words += ["--backbone", "plain", "--backbone_width", "0.125", "--attention", "none,strongest,none,strongest"]
    assert main(["retrain", *words, "--out", str(tmp_path / "run")]) == 0
    assert RunFolder(tmp_path / "run").json("summary.json")["model"].startswith("plain x0.125 + none,strongest")
    state = RunFolder(tmp_path / "run").load()["net"]
    learnt = [value for name, value in state.items() if name.endswith("conv.weight") and value.dim() == 3]
    assert len(learnt) == 2
    assert all(bool(value.any()) for value in learnt)
    drawn = ["draw", "channels", str(tmp_path / "run"), *words[words.index("--own") : words.index("--backbone")]]
    assert main([*drawn, "--device", "cpu", "-o", str(tmp_path / "channels.svg")]) == 0
    assert (tmp_path / "channels.svg").read_text().count("strongest k3") == 2


def test_an_attention_cell_on_the_patches_of_a_transformer(own: dict[str, str]) -> None:
    register([own["strongest"]])
    spec = backbone("vit_tiny_16", 0.125, small=True, attention=lambda stage: attention("strongest"))
    network = ReIDNet(spec, image(32, 16), 3).eval()
    sites = [site for site in sites_of(network) if site.module.gates_channels]
    assert [site.name for site in sites] == [f"stage {n}: strongest k3 on patches" for n in range(1, 5)]
    images = torch.randn(2, 3, 32, 16)
    plain = network.embed(images)
    for site in sites:  # each reaches the class token, the last one too
        (weight,) = site.module.parameters()
        nn.init.constant_(weight, 1.0)
        assert not torch.allclose(network.embed(images), plain)
        nn.init.zeros_(weight)
    torch.testing.assert_close(network.embed(images), plain)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "expected a mapping called TASKS, ESTIMATORS, ATTENTION, BACKBONES, found none of them"),
        ("TASKS = {'mine': 3}", "TASKS: expected names and subclasses of dnas.task.task.Task"),
        ("from dnas.nn.chain import Skip\nATTENTION = {'dcs': Skip()}", "ATTENTION: the name 'dcs' is taken"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_what_is_no_such_file(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert main(["show", "tiny_reid", "-o", str(tmp_path / "x.svg"), "--own", str(file)]) == 2
    assert said in capsys.readouterr().err
    assert main(["show", "tiny_reid", "--own"]) == 2
    assert "--own: found nothing, allowed: a Python file" in capsys.readouterr().err
