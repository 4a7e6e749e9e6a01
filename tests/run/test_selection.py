"""What a run does with channel selections: their temperature, what the log says of them, and the bound on them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dnas.cli import main
from dnas.nn.channel_selection import ChannelSelection
from dnas.run.folder import RunFolder
from tests.searches import BY_LOGITS

SMALL = ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.epochs", "2",
         "--optim.identities", "3", "--optim.images", "2", "--optim.dcs_temperature", "0.8",
         "--optim.dcs_temperature_end", "0.2", "--optim.warmup", "1", "--loss.eta_warmup", "0.5"]  # fmt: skip
FIXED = ["--backbone", "resnet18", "--backbone_width", "0.125", "--backbone_small", "true", "--holdout", "0.4"]
VERBS = {
    "retrain": [*FIXED, "--attention", "selective", "--loss.ibb_on", "both", "--test", "false"],
    "search": ["--space", "tiny_reid_dcs", "--holdout", "0.4", "--loss.ibb_on", "attention", *BY_LOGITS],
}

SITES = {
    "retrain": [f"stage {number}: selective attention" for number in (1, 2, 3, 4)],
    "search": [f"stage{number}: DCS" for number in (1, 2, 3)],
}


@pytest.mark.parametrize("verb", VERBS)
def test_masks_are_annealed_watched_and_bound(
    verb: str, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[float] = set()
    forward = ChannelSelection.forward

    def watched(module: ChannelSelection, x_BNC: Tensor) -> Tensor:
        if module.training and torch.is_grad_enabled():  # not where batch norms of a child are calibrated
            used.add(module.temperature)
        return forward(module, x_BNC)

    monkeypatch.setattr(ChannelSelection, "forward", watched)
    out = tmp_path / verb
    assert main([verb, "--data", str(pedestrians), "--out", str(out), *SMALL, *VERBS[verb]]) == 0
    assert sorted(used) == pytest.approx([0.2, 0.8])
    first, second = RunFolder(out).rows()
    on_embedding = verb == "retrain"
    assert not any(name.startswith("ibb") for name in first["loss"])  # before the warm-up's end
    assert second["loss"]["ibb_attention"] > 0
    assert ("ibb" in second["loss"]) == on_embedding
    assert second["selection_lr"] == pytest.approx({"retrain": 30, "search": 3}[verb])  # a step of 0.03; of `dcs`
    uses: dict[str, Any] = second["selection"]
    assert list(uses) == SITES[verb]
    assert all(0 <= use[key] <= 1 for use in uses.values() for key in ("share", "depending", "perplexity"))
    log = (out / "log.txt").read_text()
    assert "selected" in log
    everything = [site for site, use in uses.items() if use["share"] == 1]
    assert everything  # they start open, and two epochs are short
    assert f"warning: all of the channels selected: whatever the image, at {', '.join(everything)}" in log
