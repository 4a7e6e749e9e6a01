"""A loss or gradient that is not finite: noticed at its step, named, and never written."""

import json
from pathlib import Path

import pytest
import torch

from dnas.cli import main
from dnas.errors import UserError
from dnas.loss.objective import Objective
from dnas.nn.network import Output
from dnas.run.finite import IN_A_ROW, Watch
from dnas.run.folder import RunFolder
from dnas.run.schedules import OptimConfig
from dnas.search.budget import Budget
from dnas.search.config import SearchConfig
from dnas.search.search import Search
from search_spaces import SPACES
from tests.searches import BY_LOGITS

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
    "search": ["--holdout", "0.4", "--arch.weights_only", "0", *BY_LOGITS],
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


@pytest.mark.parametrize("verb", WORDS)
def test_steps_that_are_not_finite_can_be_skipped(
    verb: str, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad step leaves no trace: weights, statistics and batch norms are those of the step before; it is counted."""
    forward, calls = Objective.forward, []

    def broken(self: Objective, output: Output, *given: object, **more: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 5 or len(calls) > 10_000:
            output = output._replace(logits_BC=output.logits_BC * torch.nan)
        return forward(self, output, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "forward", broken)
    road = [*SMALL, "--data", str(pedestrians), "--device", "cpu", "--optim.epochs", "3", "--loss.eta_warmup", "0"]
    road += ["--optim.on_nonfinite", "skip", *WORDS[verb]]
    assert main([verb, *road, "--out", str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum(row.get("skipped", 0) for row in rows) == 1
    state = RunFolder(tmp_path / "run").load()
    for part in ("net", "objective"):
        assert all(bool(value.isfinite().all()) for value in state[part].values())
    calls += [1] * 10_000  # from now on every step
    capsys.readouterr()
    assert main([verb, *road, "--optim.epochs", "60", "--out", str(tmp_path / "hopeless")]) == 2
    assert "and so were 20 steps before it" in capsys.readouterr().err


def test_steps_of_two_kinds_are_counted_apart(pedestrians: Path) -> None:
    """Good steps of the weights between them do not hide logits that have diverged."""
    watch, bad = Watch("skip"), {"cost": torch.tensor(torch.nan)}
    other = watch.beside()
    for step in range(IN_A_ROW):
        watch.end()
        assert not other.good(f"epoch {step}", bad)
    with pytest.raises(UserError, match="and so were 20 steps before it"):
        other.good("epoch 20", bad)
    config = SearchConfig(str(pedestrians), "", holdout=0.4, device="cpu", optim=OptimConfig(identities=3, images=2))
    state = Search(config, SPACES["tiny_reid"].resized(32, 16))
    assert state.logits.watch is not state.stepper.watch
    watch = Watch()
    watch.beside().waiting.append(("epoch 1", ("cost",), torch.tensor([False]), None))
    with pytest.raises(UserError, match="'cost' not finite in epoch 1"):
        watch.check()


def test_a_cost_that_is_not_finite_is_named(
    pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Budget, "excess", lambda self, cost, progress: cost * torch.nan)
    for mode in ("score", "sampled"):
        road = [*SMALL, "--data", str(pedestrians), "--device", "cpu", *WORDS["search"], "--arch.mode", mode]
        road += ["--arch.data", "split"]
        assert main(["search", *road, "--budget.macs", "1M", "--out", str(tmp_path / mode)]) == 2
        assert "training has diverged: 'cost', 'logit_loss' not finite in epoch 0.000" in capsys.readouterr().err
