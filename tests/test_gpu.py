"""What only a GPU shows; skipped where there is none."""

from pathlib import Path

import pytest
import torch

from dnas.data.augment import InputConfig
from dnas.run.position import CheckpointConfig, Pauses, Stop
from dnas.run.schedules import OptimConfig
from dnas.run.step import TrainConfig
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.relaxation import Relaxation
from dnas.search.search import Search
from retrain.config import RetrainConfig
from retrain.train import Retraining
from search_spaces import SPACES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("mode", ["full", "sampled", "score"])
def test_a_step_waits_for_the_device_at_the_draw_alone(
    mode: str, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's sync debug mode raises at any other wait; the first epoch fills caches."""
    draws = Relaxation.host_logits
    calls = []

    def allowed(self: Relaxation) -> object:
        calls.append(torch.cuda.get_sync_debug_mode())
        torch.cuda.set_sync_debug_mode("default")
        try:
            return draws(self)
        finally:
            torch.cuda.set_sync_debug_mode(calls[-1])

    config = SearchConfig(
        str(pedestrians), str(tmp_path / "run"), holdout=0.4, device="cuda",
        optim=OptimConfig(epochs=4, identities=3, images=2),
        arch=ArchConfig(mode=mode, weights_only=0.0, prior=None), budget=BudgetConfig(macs="1M"),
    )  # fmt: skip
    state = Search(config, SPACES["tiny_reid"].resized(32, 16))
    state.position.epoch = 3
    state.train_epoch(Pauses(CheckpointConfig(), state.position, Stop(), lambda: None))
    state.stepper.watch.check()
    monkeypatch.setattr(Relaxation, "host_logits", allowed)
    state.begin_epoch(3, 0)
    batches = list(state.task.batches("weights", 3))[:2]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, (inputs, target) in enumerate(batches):
            state.step(number, inputs, target, 3.5, last=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(calls) == 2


@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_retraining_step_does_not_wait(amp: str, pedestrians: Path, tmp_path: Path) -> None:
    """Augmentation, moving averages, clipping and the watch for what is not finite included."""
    config = RetrainConfig(
        str(pedestrians), str(tmp_path / "run"), backbone="resnet18", backbone_width=0.125, device="cuda",
        attention="dcs", input=InputConfig(32, 16, jitter=0.1), optim=OptimConfig(epochs=4, identities=3, images=2),
        train=TrainConfig(ema=0.9, clip=1.0, amp=amp),
    )  # fmt: skip
    state = Retraining(config)
    state.position.epoch = 3
    state.train_epoch(Pauses(CheckpointConfig(), state.position, Stop(), lambda: None))
    state.stepper.watch.check()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, (inputs, target) in zip(range(2), state.task.batches("weights", 3), strict=False):
            state.step(number, inputs, target, 3.5, last=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
