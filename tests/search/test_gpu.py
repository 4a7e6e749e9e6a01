"""What only a GPU shows; skipped where there is none."""

from pathlib import Path

import pytest
import torch

from dnas.run.schedules import OptimConfig
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.loop import Search
from dnas.search.relaxation import Mode, Relaxation
from search_spaces import SPACES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("mode", ["full", "sampled", "score"])
def test_a_step_waits_for_the_device_at_the_draw_alone(
    mode: Mode, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's sync debug mode raises at any other wait; the first epoch fills caches."""
    draws = Relaxation.draws
    calls = []

    def allowed(self: Relaxation, *words: object) -> object:
        calls.append(torch.cuda.get_sync_debug_mode())
        torch.cuda.set_sync_debug_mode("default")
        try:
            return draws(self, *words)  # type: ignore[arg-type]
        finally:
            torch.cuda.set_sync_debug_mode(calls[-1])

    config = SearchConfig(
        str(pedestrians), str(tmp_path / "run"), holdout=0.4, device="cuda",
        optim=OptimConfig(epochs=4, identities=3, images=2),
        arch=ArchConfig(mode=mode, weights_only=0.0), budget=BudgetConfig(macs="1M"),
    )  # fmt: skip
    state = Search(config, SPACES["tiny_reid"].resized(32, 16))
    state.epoch = 3
    state._train_epoch()
    monkeypatch.setattr(Relaxation, "draws", allowed)
    batch, held = state._sampler(state.train).epoch(3)[0], state._logit_batches(1)[0]
    generator = torch.Generator().manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(2):
            drawn = state.relaxation.draws(5, 1.0, mode, generator, 0.0)
            state.relaxation.use(drawn, 0)
            state._weight_step(batch, 3.5, step, False)
            if mode == "score":
                state._score_step(held, 3.5, step, drawn)
            else:
                state.relaxation.use(drawn, 1, gradient=True)
                state._logit_step(held, 3.5, step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(calls) == 2
