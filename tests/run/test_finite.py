"""A loss or gradient that is not finite: noticed at its step, named, and never written."""

import json
from pathlib import Path

import pytest
import torch

from dnas.cli import main
from dnas.errors import UserError
from dnas.loss.objective import Objective
from dnas.run.finite import Watch
from dnas.run.folder import RunFolder

SMALL = ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]


def test_the_broken_term_is_named() -> None:
    watch = Watch()
    assert watch.good("epoch 0.1", {"id": torch.tensor(1.0), "triplet": torch.tensor(0.0)})
    with pytest.raises(UserError, match=r"'triplet', 'ibb' not finite in epoch 0\.2"):
        watch.good(
            "epoch 0.2", {"id": torch.tensor(1.0), "triplet": torch.tensor(torch.nan), "ibb": torch.tensor(torch.inf)}
        )
    watch.check()


WORDS = {
    "retrain": ["--backbone", "resnet18", "--backbone_width", "0.125"],
    "search": ["--holdout", "0.4", "--arch.weights_only", "0"],
}


@pytest.mark.parametrize(
    ("verb", "term"),
    [(verb, term) for verb in WORDS for term in ("id", "triplet", "ibb")] + [("retrain", "gradient")],
)
def test_a_run_that_diverges_keeps_its_last_good_state(
    verb: str,
    term: str,
    pedestrians: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward, calls = Objective.forward, []

    def broken(self: Objective, *given: object, **more: object) -> dict[str, torch.Tensor]:
        terms = forward(self, *given, **more)  # type: ignore[arg-type]
        if float(given[2]) >= 0.5:  # type: ignore[arg-type]  # the second of two epochs
            calls.append(term)
            if term == "gradient":
                terms["id"] = torch.where(terms["id"] > 1e9, terms["id"] / 0, terms["id"])
                terms["id"].register_hook(lambda g: g * torch.nan)
            else:
                terms[term] = terms[term] * torch.nan
        return terms

    monkeypatch.setattr(Objective, "forward", broken)
    out = tmp_path / "run"
    road = [*SMALL, "--data", str(pedestrians), "--device", "cpu", "--optim.epochs", "2", "--loss.eta_warmup", "0"]
    assert main([verb, *road, *WORDS[verb], "--checkpoint.every_steps", "1", "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert f"training has diverged: '{term}'" in error  # in a search the loss of the logits has it too
    assert "not finite in epoch 1.000" in error
    assert "\n" not in error
    state = RunFolder(out).load()
    assert (state["position"]["epoch"], state["position"]["step"]) == (1, 0)
    assert all(bool(value.isfinite().all()) for value in state["net"].values())
    assert [json.loads(line)["epoch"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [0]
