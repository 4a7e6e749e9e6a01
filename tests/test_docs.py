"""The code in the documents runs: a space and an operation of one's own."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dnas.cli import main
from dnas.nn.chain import Chain, Skip
from dnas.nn.reid_net import ReIDNet
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder, inherit
from dnas.space.genotype import read_genotype
from dnas.space.spec import OneOf, decisions, fill
from search_spaces import load_space
from tests.spaces import random_choices

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = re.findall(r"```python\n(.*?)```", (DOCS / "spaces.md").read_text(), re.S)


def test_the_space_of_the_document(pedestrians: Path, tmp_path: Path) -> None:
    file = tmp_path / "my_space.py"
    file.write_text(BLOCKS[0])
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 20
    road = ["--data", str(pedestrians), "--input.height", "32", "--input.width", "16", "--space", str(file)]
    small = ["--optim.identities", "3", "--optim.images", "2", "--optim.epochs", "2", "--device", "cpu"]
    words = ["--out", str(tmp_path / "run"), "--budget.macs", "0.1M", "--holdout", "0.4"]
    assert main(["search", *road, *small, *words]) == 0
    genotype = read_genotype(tmp_path / "run" / "genotype.json")
    assert genotype.cost["macs"] <= 1e5
    words = ["--genotype", str(tmp_path / "run"), "--out", str(tmp_path / "retrained")]
    assert main(["retrain", *road, *small, *words]) == 0


@pytest.mark.parametrize("training", [False, True])
def test_the_operation_of_the_document(tmp_path: Path, training: bool) -> None:
    """Used in the document's space: one-hot supernet == child, counted cost == measured cost."""
    assert len([line for line in BLOCKS[1].splitlines() if line.strip()]) <= 25
    module: dict[str, object] = {"__name__": "document"}
    exec(BLOCKS[1], module)  # our own document
    shift = module["Shift"]()  # type: ignore[operator]
    file = tmp_path / "my_space.py"
    file.write_text(BLOCKS[0])
    space = load_space(str(file)).resized(32, 16)
    assert isinstance(space.spec, Chain)
    stem, *rest = space.spec.parts
    options = OneOf("shift", {"none": Skip(), "shift": shift})
    space = replace(space, spec=Chain((stem, rest[0], options, *rest[1:])))
    relaxation = Relaxation(decisions(space.spec))
    net = ReIDNet(space.spec, space.input, 5, SupernetBuilder(relaxation.draw)).double().train(training)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    for seed in range(4):
        choices = random_choices(space, seed) | {"shift": "shift", "early.attention": "eca", "late.attention": "none"}
        child = ReIDNet(fill(space.spec, choices), space.input, 5).double().train(training)
        inherit(child, net, choices)
        relaxation.double().fix(choices)
        images = torch.randn(3, 3, 32, 16, dtype=torch.float64)
        torch.testing.assert_close(net(images), child(images), rtol=0, atol=1e-10)
        with FlopCounterMode(display=False) as counter:
            child.backbone(images)
        counted = fill(space.spec, choices).cost(space.input)
        assert 2 * 3 * counted.macs.value == counter.get_total_flops()
        assert counted.params.value == sum(p.numel() for p in child.backbone.parameters())


def test_a_manifest_of_a_wildlife_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The document's lines on a tiny catalogue of the package's form make a set that can be trained on and ranked."""
    pandas = pytest.importorskip("pandas")
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "data.md").read_text(), re.S)
    rng, rows = np.random.default_rng(0), []
    for animal in range(6):
        for number in range(3):
            file = tmp_path / f"data/atrw/images/{animal}/{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
            rows.append((len(rows), animal if animal < 5 else "unknown", f"images/{animal}/{number}.jpg", "left"))
    table = pandas.DataFrame(rows, columns=["image_id", "identity", "path", "orientation"])

    class Catalogue:
        """As wildlife_datasets.datasets.WildlifeDataset: a table, with paths from its root."""

        def __init__(self, root: str, remove_unknown: bool = False) -> None:
            self.df = table[table.identity != "unknown"].reset_index(drop=True) if remove_unknown else table

    module = ModuleType("wildlife_datasets.datasets")
    module.ATRW = Catalogue  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wildlife_datasets", ModuleType("wildlife_datasets"))
    monkeypatch.setitem(sys.modules, "wildlife_datasets.datasets", module)
    monkeypatch.chdir(tmp_path)
    exec(block, {})  # our own document
    assert main(["data", "check", "data/atrw/manifest.csv"]) == 0
    assert "ranked cameras ignored" in capsys.readouterr().out
    words = ["--input.height", "16", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    words += ["--optim.epochs", "1", "--device", "cpu", "--backbone", "resnet18", "--backbone_width", "0.125"]
    assert main(["retrain", "--data", "data/atrw/manifest.csv", *words, "--out", "run"]) == 0
    assert '"images": 9' in (tmp_path / "run/data.json").read_text()
    assert '"images": 6' in (tmp_path / "run/data.json").read_text()
