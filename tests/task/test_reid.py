"""Re-ID as a task: what a look at held-out identities costs, and what it says."""

from pathlib import Path

import pytest
import torch

from dnas.data.images import Images
from dnas.eval.ranking import rank
from dnas.nn.backbones import backbone
from dnas.space.spec import image
from dnas.task.config import JobConfig
from dnas.task.images import calibration_batches
from dnas.task.reid import ReIDTask
from dnas.task.task import Needs

CPU = torch.device("cpu")


def test_a_look_embeds_once_and_reads_the_input_once(pedestrians: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ReIDTask(JobConfig(str(pedestrians), "", holdout=0.4), Needs(32, 16, 64, CPU, tested=False))
    network, read = ReIDTask.network(backbone("resnet18", 0.125, small=True), image(32, 16), task.classes), []
    batches = Images.batches
    monkeypatch.setattr(Images, "batches", lambda *given: (read.append(1), batches(*given))[1])
    found = task.look(network)
    assert len(read) == 2  # for the embedding, and for the input side
    assert [task.look(network) for _ in range(2)] == [found, found]
    assert len(read) == 4
    held = task.held_out
    assert held is not None
    embedding = torch.cat([network.eval().embed(x) for x in batches(held, 64, CPU)]).detach()
    assert found["held_out"] == pytest.approx(rank(embedding, embedding, held.ids, held.ids).metrics())
    assert found["held_out"] == task.evaluate(network)


def test_few_images_are_not_passed_over_and_over_for_the_statistics(pedestrians: Path) -> None:
    task = ReIDTask(JobConfig(str(pedestrians), "", holdout=0.4), Needs(32, 16, 64, CPU, tested=False))
    batches = list(task.calibration())
    assert [len(batch) for batch in batches] == [64] * -(-4 * len(task.train) // 64)
    assert len(batches) < 4
    assert [calibration_batches(images) for images in (1, 16, 17, 304, 305, 10**6)] == [1, 1, 2, 19, 20, 20]
