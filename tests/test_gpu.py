"""What only a GPU shows; skipped where there is none."""

from pathlib import Path

import pytest
import torch

from dnas.data.augment import InputConfig, draw
from dnas.run.position import CheckpointConfig, Pauses, Stop
from dnas.run.schedules import OptimConfig
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.loop import Search
from dnas.search.relaxation import Relaxation
from retrain.config import RetrainConfig, TrainConfig
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
        arch=ArchConfig(mode=mode, weights_only=0.0), budget=BudgetConfig(macs="1M"),
    )  # fmt: skip
    state = Search(config, SPACES["tiny_reid"].resized(32, 16))
    state.position.epoch = 3
    state._train_epoch(Pauses(CheckpointConfig(), state.position, Stop(), lambda: None))
    state.steps.watch.check()
    monkeypatch.setattr(Relaxation, "host_logits", allowed)
    batch, held = state._sampler(state.train).epoch(3)[0], state._logit_batches(1)[0]
    generator = torch.Generator().manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(2):
            state.estimator.draw(5, 1.0, generator)
            state.estimator.use(0)
            state.steps.weights(batch, 3, step, 3.5, False)
            state.steps.logits(held, 3, step, 3.5)
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
    state._train_epoch(Pauses(CheckpointConfig(), state.position, Stop(), lambda: None))
    state.step.watch.check()
    index = torch.from_numpy(state.sampler.epoch(3)[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = state.train.take(index, state.device)
        for _ in range(2):
            inputs = state.augment(batch, draw(len(index), torch.Generator()))
            state.step(inputs, batch.labels, 3.5, last=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
