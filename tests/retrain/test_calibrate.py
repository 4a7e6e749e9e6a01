"""Thresholds by command: on held-out people, or on those of another data set; and what then uses them."""

import json
from pathlib import Path
from typing import Any

import pytest

from dnas.cli import main
from dnas.data.synthetic import SynthConfig, synthesise
from dnas.serve.load import load


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.slow
def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("data", 0), ("other", 1)):
        synthesise(SynthConfig(str(tmp_path / name), ids=24, cameras=3, images=2, height=32, width=16, seed=seed))
    words = ["--data", str(tmp_path / "data"), "--backbone", "resnet18", "--backbone_width", "0.125", "--device", "cpu"]
    words += ["--input.height", "32", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
    words += ["--optim.epochs", "2", "--test", "false"]
    held, everything = str(tmp_path / "held"), str(tmp_path / "everything")
    assert main(["retrain", *words, "--out", held, "--holdout", "0.8"]) == 0
    assert main(["retrain", *words, "--out", everything]) == 0
    before = json.loads((tmp_path / "held" / "calibration.json").read_text())  # by the retraining itself
    capsys.readouterr()
    assert main(["calibrate", held, "--device", "cpu", "-o", str(tmp_path / "det.svg"), "--json"]) == 0
    found = last_json(capsys)
    assert found["on"] == before["on"] == "held-out identities"
    assert [point["share"] for point in before["points"]] == [point["share"] for point in found["points"]]
    assert before["points"][0]["similarity"] == pytest.approx(found["points"][0]["similarity"], abs=1e-3)
    assert found == json.loads((tmp_path / "held" / "calibration.json").read_text())
    assert (tmp_path / "det.svg").stat().st_size > 3000
    interface = load(held, "cpu").interface
    assert interface.threshold == found["points"][-1]["similarity"]
    assert interface.false_share == found["points"][-1]["share"]
    assert main(["eval", held, "--open_set", "--device", "cpu", "--json"]) == 0
    rows = last_json(capsys)["open_set"]
    assert [row["measured"] for row in rows][-1] is True
    assert rows[-1]["threshold"] == interface.threshold
    for wrong, message in (
        ([everything], "its network has seen all people"),
        ([everything, "--data", str(tmp_path / "data")], "the network was trained on these people"),
    ):
        assert main(["calibrate", *wrong, "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err
    assert main(["calibrate", everything, "--data", str(tmp_path / "other"), "--device", "cpu"]) == 0
    elsewhere = str(tmp_path / "elsewhere")  # tested on other people: its fingerprint is of both
    assert main(["retrain", *words, "--out", elsewhere, "--holdout", "0.4", "--test_on", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    assert main(["calibrate", elsewhere, "--data", str(tmp_path / "data"), "--device", "cpu"]) == 2
    assert "the network was trained on these people" in capsys.readouterr().err
    assert main(["calibrate", elsewhere, "--data", str(tmp_path / "other"), "--device", "cpu"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert main(["probe", elsewhere, "--data", str(tmp_path / "data"), "--device", "cpu", "--json"]) == 0
    there = last_json(capsys)["information"]
    assert main(["probe", elsewhere, "--device", "cpu", "--json"]) == 0
    own = last_json(capsys)["information"]
    assert [there[name] for name in ("train", "held_out")] == [own[name] for name in ("train", "held_out")]
    assert main(["probe", elsewhere, "--data", str(tmp_path / "other"), "--device", "cpu", "--json"]) == 0
    assert set(last_json(capsys)["information"]) == {"train", "test"}
    (tmp_path / "data").rename(tmp_path / "moved")
    assert main(["calibrate", elsewhere, "--data", str(tmp_path / "other"), "--device", "cpu"]) == 0
    assert "warning: whether these are other people is not known: data:" in capsys.readouterr().out
    (tmp_path / "moved").rename(tmp_path / "data")
    (tmp_path / "held" / "calibration.json").write_text('{"points": [{"share": "x"}]}')
    assert main(["find", held, held]) == 2
    assert main(["embed", held, str(tmp_path / "data"), "-o", str(tmp_path / "v.npz"), "--device", "cpu"]) == 2
    assert "calibration.json" in capsys.readouterr().err
