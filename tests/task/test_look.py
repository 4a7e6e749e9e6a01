"""What a look at held-out images computes: one embedding; the input side of the information at the first look alone."""

from pathlib import Path

import pytest
import torch

from dnas.data.images import Images
from dnas.nn.backbones import backbone
from dnas.search.config import SearchConfig
from dnas.space.spec import image
from dnas.task import pick_task
from dnas.task.task import Needs


def test_a_look_embeds_once_and_reads_the_input_once(pedestrians: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = Needs(32, 16, 64, torch.device("cpu"), tested=False)
    task = pick_task("reid")(SearchConfig(str(pedestrians), "", holdout=0.4), needs)
    network = task.network(backbone("resnet18", 0.125, small=True), image(32, 16), task.classes)
    read: list[int] = []
    batches = Images.batches
    monkeypatch.setattr(Images, "batches", lambda *given: (read.append(1), batches(*given))[1])
    first = task.look(network)
    assert len(read) == 2
    assert task.look(network) == first
    assert len(read) == 3
    assert {"held_out", "information"} <= first.keys()
