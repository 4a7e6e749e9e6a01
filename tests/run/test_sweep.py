"""Sweeps: planning, several workers, one that dies, failures that are tried again, ranges, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dnas.cli import main
from dnas.errors import UserError
from dnas.run.sweep import DONE, Sweep, SweepConfig, folder_name
from tests.searches import BY_LOGITS

TrialState = pytest.importorskip("optuna.trial").TrialState


def settings(pedestrians: Path) -> dict[str, object]:
    return {
        "data": str(pedestrians), "device": "cpu", "backbone": "resnet18", "backbone_width": 0.125, "holdout": 0.4,
        "input": {"height": 32, "width": 16}, "optim": {"epochs": 2, "identities": 3, "images": 2},
    }  # fmt: skip


def written(file: Path, **content: object) -> str:
    file.write_text(yaml.safe_dump({"verb": "retrain", **content}))
    return str(file)


@pytest.mark.parametrize(
    ("verb", "words", "last"),
    [
        ("retrain", ["--backbone", "resnet18", "--backbone_width", "0.125"], "dnas.task.reid.ReIDTask.thresholds"),
        ("search", BY_LOGITS, "dnas.search.search.stand"),
    ],
)
def test_what_says_that_a_run_is_done_is_written_last(
    verb: str, words: list[str], last: str, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped before its thresholds, or its verification, goes on."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    common = ["--data", str(pedestrians), "--device", "cpu", "--input.height", "32", "--input.width", "16"]
    common += ["--holdout", "0.4", "--optim.epochs", "1", "--optim.identities", "3", "--optim.images", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(last, stop)
        assert main([verb, *common, *words, "--out", str(tmp_path / "run")]) != 0
    assert not (tmp_path / "run" / DONE[verb]).exists()
    assert main([verb, "--resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / DONE[verb]).exists()


@pytest.mark.slow
def test_two_workers_share_and_a_third_takes_over_from_a_dead_one(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vary = {"seed": [0, 1], "loss.eta": [0.3]}
    out = tmp_path / "runs"
    file = written(tmp_path / "s.yaml", out=str(out), vary=vary, settings=settings(pedestrians))
    words = [sys.executable, "-m", "dnas.cli", "sweep", file]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    dies = subprocess.Popen(words, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    while not list(out.glob("*/config.yaml")) and dies.poll() is None:
        time.sleep(0.05)
    os.killpg(dies.pid, signal.SIGKILL)  # with the run that it had begun
    dies.wait()
    begun = [folder.parent.name for folder in out.glob("*/config.yaml")]
    assert len(begun) == 1
    workers = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    together = "".join(said)
    assert f"sweep: {begun[0]} (goes on)" in together
    assert together.count("sweep: eta=") == 2  # each run was done by one of them
    assert main(["sweep", file, "--json"]) == 0  # nothing left to do: the table
    captured = capsys.readouterr().out
    rows = json.loads(captured.splitlines()[-1])
    assert sorted((row["params"]["seed"], row["params"]["loss.eta"]) for row in rows) == [(0, 0.3), (1, 0.3)]
    for row in rows:
        summary = json.loads((out / row["run"] / "summary.json").read_text())
        assert row["state"] == "complete"
        assert row["held_out"] == summary["held_out"]["mAP"]
    assert "mean ± standard" in captured
    other = written(tmp_path / "o.yaml", out=str(out), vary={"seed": [0]}, settings=settings(pedestrians))
    assert main(["sweep", other]) == 2
    assert "holds a sweep with other vary" in capsys.readouterr().err


@pytest.mark.long
def test_failures_are_told_and_tried_again(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.pth"
    vary = {"seed": [3]}
    content = {**settings(pedestrians), "weights": str(weights)}
    file = written(tmp_path / "s.yaml", out=str(tmp_path / "runs"), vary=vary, settings=content)
    for _ in range(2):
        assert main(["sweep", file]) == 2
        assert f"1 runs failed: {folder_name({'seed': 3})}; the same command" in capsys.readouterr().err


def test_ranges_are_drawn_and_more_workers_go_on(pedestrians: Path, tmp_path: Path) -> None:
    vary = {"loss.eta": {"low": 0.01, "high": 1.0, "log": True}, "loss.bound": ["paper", "tight"]}
    config = SweepConfig("retrain", str(tmp_path / "runs"), vary, settings(pedestrians), trials=3)
    taken = []
    for _ in range(2):  # two workers in turn
        sweep = Sweep(config)
        found = sweep._next()
        assert found is not None
        number, params, lock = found
        taken.append(params)
        sweep.study.tell(number, 0.5)
        lock.release()
    sweep = Sweep(config)
    number, params, lock = sweep._next() or (0, {}, None)  # type: ignore[assignment]
    taken.append(params)
    assert all(0.01 <= row["loss.eta"] <= 1 and row["loss.bound"] in ("paper", "tight") for row in taken)
    assert len({folder_name(row) for row in taken}) == 3
    assert Sweep(config)._next() is None  # the third is being done, and there are no more
    lock.release()
    assert Sweep(config)._next() is not None  # its worker has gone


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"vary": {}}, "vary: found nothing"),
        ({"vary": {"seed": []}}, "vary: seed: found [], allowed: a list"),
        ({"vary": {"seed": [1, 1]}}, "vary: seed: found [1, 1], allowed: a list"),
        ({"vary": {"loss.eta": {"low": 1, "high": 0}}}, "vary: loss.eta: found {'high': 0, 'low': 1}, allowed"),
        ({"vary": {"loss.eta": {"low": 0, "high": 1}}}, "trials: found 0, allowed: above 0 with a range"),
        ({"vary": {"loss.beta": [-1.0]}}, "loss.beta -1.0: loss.beta: found -1.0, allowed: above 0"),
        ({"vary": {"loss.etta": [1.0]}}, "loss.etta"),
        ({"vary": {"seed": [1]}, "settings": {"out": "x"}}, "settings: out: not here"),
        (
            {"vary": {"seed": [1]}, "settings": {"space": "x.py"}},
            "space: a file of your own is run, so it must be typed",
        ),
        ({"vary": {"space": ["x.py", "y.py"]}}, "space: a file of your own is run"),
        ({"vary": {"seed": [1]}, "workers": 3}, "unknown key 'workers', allowed: verb, out"),
        ({"vary": {"loss.eta": {"low": 0, "high": 1}}, "trials": 2}, "set holdout in settings"),
    ],
)
def test_what_is_refused(
    content: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {"settings": {"data": "d", "backbone": "resnet18"}}
    file = written(tmp_path / "s.yaml", out=str(tmp_path / "runs"), **{**plain, **content})
    assert main(["sweep", file]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "runs").exists()


def test_whole_numbers_are_drawn_and_what_failed_is_drawn_again(pedestrians: Path, tmp_path: Path) -> None:
    vary = {"optim.epochs": {"low": 2, "high": 9}}
    config = SweepConfig("retrain", str(tmp_path / "runs"), vary, settings(pedestrians), trials=1)
    sweep = Sweep(config)
    number, params, lock = sweep._next() or (0, {}, None)  # type: ignore[assignment]
    assert isinstance(params["optim.epochs"], int)
    sweep.study.tell(number, state=TrialState.FAIL)
    lock.release()
    again = Sweep(config)._next()
    assert again is not None
    assert again[1] == params


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="storage: cannot be opened"):
        Sweep(SweepConfig("search", str(tmp_path / "runs"), {"seed": [1]}, storage="nosuch://x"))
