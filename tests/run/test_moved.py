"""Runs that are looked at, and go on, from another working folder, after a move, and with their data elsewhere."""

import json
import shutil
from pathlib import Path

import pytest

from dnas.cli import main
from dnas.run.folder import RunFolder
from dnas.run.position import Position
from tests.searches import BY_LOGITS

SMALL = ["--input.height", "16", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
SMALL += ["--device", "cpu", "--optim.epochs", "2"]
KINDS = {
    "search": ["--holdout", "0.4", *BY_LOGITS],
    "retrain": ["--backbone", "resnet18", "--backbone_width", "0.125"],
}


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture
def project(pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, and a search and a retraining there, stopped after an epoch; named from the folder."""
    folder = tmp_path / "project"
    shutil.copytree(pedestrians, folder / "data/set")
    monkeypatch.chdir(folder)
    save = RunFolder.save

    def stop(self: RunFolder, state: dict[str, object], position: Position, keep: int) -> None:
        save(self, state, position, keep)
        raise KeyboardInterrupt

    for verb, words in KINDS.items():
        monkeypatch.setattr(RunFolder, "save", stop)
        assert run(verb, *SMALL, *words, "--data", "data/set", "--out", f"runs/{verb}") == 130
    monkeypatch.setattr(RunFolder, "save", save)
    return folder


@pytest.mark.slow
def test_from_another_folder_and_after_a_move(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert run("search", "--resume", project / "runs/search") == 0
    assert run("retrain", "--resume", project / "runs/retrain") == 0
    moved = tmp_path / "far/away"
    shutil.move(project, moved)
    done = moved / "runs/retrain"
    assert run("eval", done, "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["plain"]["all"]["mAP"] == json.loads((done / "summary.json").read_text())["test"]["mAP"]
    assert run("probe", done) == 0
    assert run("draw", "distances", done, "-o", tmp_path / "d.png") == 0
    assert run("retrain", "--resume", done) == 0
    assert (done / "config.yaml").read_text().startswith("data: data/set\n")


@pytest.mark.slow
def test_with_the_data_elsewhere(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fingerprint decides: the same images go on, others are refused, and the new place is remembered."""
    shutil.move(project / "data/set", tmp_path / "set")
    shutil.copytree(tmp_path / "set", tmp_path / "less")
    next((tmp_path / "less/bounding_box_train").iterdir()).unlink()
    for verb in KINDS:
        folder = project / "runs" / verb
        assert run(verb, "--resume", folder) == 2
        error = capsys.readouterr().err
        assert f"data: data/set: not there (looked in {project}, {folder}); say where it is: --data ROOT" in error
        assert run(verb, "--resume", folder, "--data", tmp_path / "less") == 2
        assert "the data set has changed since this run began" in capsys.readouterr().err
        assert run(verb, "--resume", folder, "--data", "../set") == 0
        assert f"data: {tmp_path}" in (folder / "config.yaml").read_text()
    done = project / "runs/retrain"
    assert run("eval", done) == 0
    assert run("eval", done, "--data", tmp_path / "less") == 0
    next((tmp_path / "set/query").iterdir()).unlink()
    capsys.readouterr()
    for verb in (["eval"], ["probe"], ["draw", "cmc"], ["draw", "distances"]):
        code = run(*verb, done, *(["-o", tmp_path / "x.png"] if verb[0] == "draw" else []))
        assert code == (0 if "cmc" in verb else 2)  # which is drawn from what the run wrote
        assert code == 0 or "is not the data set that the run was trained on (data.json)" in capsys.readouterr().err
