"""Inherited weights are judged on what the search held out, whatever the seed; and a search that trains no logits."""

import json
from pathlib import Path

import numpy as np
import pytest

from dnas.cli import main
from dnas.data.layouts import load_data
from dnas.data.splits import hold_out
from dnas.data.synthetic import SynthConfig, synthesise
from dnas.run.folder import RunFolder
from retrain.models import stored_config
from retrain.train import Retraining
from tests.searches import BY_LOGITS

SMALL = ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
SMALL += ["--optim.epochs", "1", "--device", "cpu"]


def test_the_hold_out_goes_with_the_weights(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out = str(tmp_path / "search"), tmp_path / "inherited"
    words = ["search", *SMALL, *BY_LOGITS, "--data", str(pedestrians), "--holdout", "0.4", "--seed", "3"]
    assert main([*words, "--out", found]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: no epoch trains the logits (optim.epochs 1, arch.weights_only none)" in said
    words = ["retrain", *SMALL, "--genotype", found, "--inherit", "true", "--seed", "5", "--test", "false"]
    assert main([*words, "--data", str(pedestrians), "--holdout", "0.2", "--out", str(out)]) == 0
    train = load_data(str(pedestrians)).train
    expected = np.unique(hold_out(train, 0.4, 3)[1].pids).tolist()
    assert expected != np.unique(hold_out(train, 0.4, 5)[1].pids).tolist()
    task = Retraining(stored_config(RunFolder(out)), fresh=False).task
    assert np.unique(task.held_out.pids).tolist() == expected  # type: ignore[attr-defined]

    other = tmp_path / "other"
    synthesise(SynthConfig(str(other), ids=10, cameras=3, images=2, height=32, width=16, seed=9))
    capsys.readouterr()
    assert main([*words, "--data", str(other), "--holdout", "0.2", "--out", str(tmp_path / "x")]) == 2
    assert "inherit: held out: found " in capsys.readouterr().err
    assert main([*words, "--data", str(other), "--out", str(tmp_path / "y")]) == 0  # nothing held out: nothing seen
    file = tmp_path / "search" / "genotype.json"
    genotype = json.loads(file.read_text())
    del genotype["search"]["holdout"]
    file.write_text(json.dumps(genotype))
    assert main([*words, "--data", str(pedestrians), "--holdout", "0.2", "--out", str(tmp_path / "z")]) == 2
    assert "genotype.json: does not say what its search held out" in capsys.readouterr().err


def test_a_search_that_trains_logits_does_not_warn(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", *SMALL, *BY_LOGITS, "--data", str(pedestrians), "--holdout", "0.4", "--arch.weights_only", "0"]
    assert main([*words, "--out", str(tmp_path / "search")]) == 0
    assert "no epoch trains the logits" not in capsys.readouterr().out
