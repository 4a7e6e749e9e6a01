"""Stopped between any two steps and gone on with: every byte as without the stop. And checkpoints that are damaged."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dnas.cli import main
from dnas.errors import UserError
from dnas.run.checkpoints import checkpoints, load_checkpoint, save_checkpoint
from dnas.run.folder import RunFolder
from dnas.run.position import CheckpointConfig, Interrupted, Pauses, Position, Stop
from tests.data.test_classes import pictures
from tests.searches import BY_LOGITS

SMALL = ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
RUNS = {
    "search": ["--holdout", "0.4", "--space", "tiny_reid_dcs", "--loss.refresh", "epoch", "--loss.eta_warmup", "0"],
    "search sampled": ["--holdout", "0.4", "--arch.mode", "sampled", "--arch.weights_only", "0", *BY_LOGITS],
    "search joint": [
        *("--holdout", "0.4", "--arch.mode", "sampled", "--arch.data", "joint", "--arch.weights_only", "0"),
        *BY_LOGITS,
        *("--train.ema", "0.9", "--train.accumulate", "2", "--train.clip", "1.0", "--train.amp", "bf16"),
    ],
    "search classes": ["--task", "classify", "--holdout", "0.4", "--optim.batch", "4", "--arch.weights_only", "0"],
    "retrain classes": [
        *("--task", "classify", "--backbone", "resnet18", "--backbone_width", "0.125", "--optim.batch", "4"),
        *("--loss.eta_warmup", "0", "--loss.refresh", "epoch"),
    ],
    "retrain": ["--backbone", "resnet18", "--backbone_width", "0.125", "--attention", "dcs", "--loss.eta_warmup", "0"],
    "retrain all": [
        *("--backbone", "osnet_x0_25", "--backbone_small", "true", "--train.ema", "0.9", "--train.accumulate", "2"),
        *("--train.amp", "bf16", "--loss.centre", "0.01", "--loss.refresh", "epoch", "--loss.eta_warmup", "0"),
    ],
}


def results(folder: Path) -> dict[str, bytes]:
    """Files that must not depend on interruptions."""
    names = ("metrics.jsonl", "genotype.json", "summary.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def same_state(a: object, b: object, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a.nan_to_num(7), b.nan_to_num(7)), where
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys(), where
        for key in a:
            same_state(a[key], b[key], f"{where}.{key}")
    else:
        assert a == b or (a != a and b != b), where  # NaN is not itself


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("search classes", "retrain") else pytest.mark.slow) for name in RUNS],
)
def test_every_step_can_be_the_last(
    name: str, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after every single step of two epochs, one run after the other."""
    verb = name.split()[0]
    data = pictures(tmp_path / "classes", {"a": 12, "b": 12}) if "classes" in name else pedestrians
    road = [*SMALL, "--data", str(data), "--device", "cpu", "--optim.epochs", "2", *RUNS[name]]
    assert main([verb, *road, "--out", str(tmp_path / "whole")]) == 0
    after_step, between_looks = Pauses.after_step, Pauses.between_looks
    stopped_between: list[bool] = []

    def ask(self: Pauses, steps: int, ready: bool = True) -> None:
        self.stop.signal = signal.SIGTERM
        after_step(self, steps, ready)

    def look(self: Pauses) -> None:
        stopped_between.append(self.stop.signal is not None)
        between_looks(self)

    monkeypatch.setattr(Pauses, "after_step", ask)
    monkeypatch.setattr(Pauses, "between_looks", look)
    stopped = tmp_path / "stopped"
    codes = [main([verb, *road, "--out", str(stopped)])]
    while codes[-1] == 143 and len(codes) < 40:
        codes.append(main([verb, "--resume", str(stopped)]))
    assert codes[-1] == 0
    assert len(codes) > 3
    assert any(stopped_between) == (name in ("search", "search classes"))  # those that judge networks at their end
    assert results(stopped) == results(tmp_path / "whole")
    same_state(RunFolder(stopped).load(), RunFolder(tmp_path / "whole").load())


def test_checkpoints_within_an_epoch() -> None:
    saved = []
    position, stop = Position(), Stop()
    pauses = Pauses(
        CheckpointConfig(every_steps=2), position, stop, lambda: saved.append((position.epoch, position.step))
    )
    for _ in range(2):
        for _ in range(5):
            pauses.after_step(5)
        position.finish()
    assert saved == [(0, 2), (0, 4), (1, 1), (1, 3)]
    pauses.after_step(5, ready=False)
    pauses.after_step(5, ready=False)  # due, but gradients are waiting
    pauses.after_step(5)
    assert saved[-1] == (2, 3)
    stop.ask(signal.SIGTERM, None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(Interrupted):
        pauses.after_step(5)
    assert saved[-1] == (2, 4)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """Each of many random byte flips and truncations of the newest file is detected."""
    for epoch in range(4):
        save_checkpoint(tmp_path, {"epoch": epoch, "tensor": torch.full((300,), float(epoch))}, epoch, 0)
    newest, before = checkpoints(tmp_path)  # two are kept
    content, rng = newest.read_bytes(), random.Random(0)
    for case in range(1000):
        damaged = bytearray(content)
        if case % 3:
            place = rng.randrange(len(damaged))
            damaged[place] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(damaged)) :]
        newest.write_bytes(damaged)
        found = load_checkpoint(tmp_path)
        assert found is not None
        assert (found[0]["epoch"], found[1]) == (2, [newest])
    newest.write_bytes(content)
    assert load_checkpoint(tmp_path)[0]["epoch"] == 3  # type: ignore[index]
    newest.write_bytes(b"")
    before.write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path / "nothing") is None


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    road = [*SMALL, "--data", str(pedestrians), "--device", "cpu", *RUNS["retrain"]]
    assert main(["retrain", *road, "--optim.epochs", "3", "--out", str(tmp_path / "run")]) == 0
    whole = results(tmp_path / "run")
    newest = checkpoints(tmp_path / "run/checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-7])
    capsys.readouterr()
    assert main(["retrain", "--resume", str(tmp_path / "run")]) == 0
    assert f"{newest.name}: damaged (checksum), taking the one before" in capsys.readouterr().err
    assert results(tmp_path / "run") == whole


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused_and_a_signal_ends_in_order(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real process: while it runs its folder is taken; SIGTERM ends it with a checkpoint; then it can go on."""
    out = tmp_path / "run"
    road = [*SMALL, "--data", str(pedestrians), "--device", "cpu", *RUNS["retrain"], "--optim.epochs", "400"]
    command = [sys.executable, "-m", "dnas.cli", "retrain", *road, "--out", str(out)]
    with subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    ) as run:
        while not (out / "metrics.jsonl").exists() and run.poll() is None:
            time.sleep(0.1)
        assert main(["retrain", "--resume", str(out)]) == 2
        assert "another process is running there" in capsys.readouterr().err
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 143
        assert run.stderr is not None
        assert "go on with --resume" in run.stderr.read()
    position = RunFolder(out).load()["position"]
    logged = (out / "metrics.jsonl").read_text().splitlines()
    assert len(logged) == position["epoch"] < 400
    assert [json.loads(line)["epoch"] for line in logged] == list(range(len(logged)))
    with RunFolder(out).locked():
        pass  # the dead process does not hold it
