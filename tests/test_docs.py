"""The code in the documents runs: a space and an operation of one's own."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
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

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "docs" / "spaces.md").read_text(), re.S)


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
