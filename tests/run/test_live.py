"""Events for TensorBoard: read back by TensorBoard itself, replaced after a run was put back, never in the way."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dnas.run.live import Live


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_scalars_by_epoch_and_after_going_back(tmp_path: Path) -> None:
    def row(epoch: int, loss: float) -> dict[str, object]:
        return {
            "epoch": epoch,
            "loss": {"id": loss},
            "probabilities": {"a": [1.0]},
            "held_out": {"mAP": 0.5},
            "target": None,
        }

    live = Live(tmp_path)
    for epoch in range(3):
        live.epoch(row(epoch, 3.0 - epoch), {"epoch_s": 1.5})
    assert len(list((tmp_path / "tb").iterdir())) == 1
    live = Live(tmp_path)  # the run goes on from its second epoch
    live.epoch(row(1, 0.25), {"epoch_s": 1.5})
    found = read(tmp_path / "tb")
    assert found["loss/id"] == [(1, 3.0), (2, 0.25)]
    assert set(found) == {"loss/id", "held_out/mAP", "time/epoch_s"}


def test_no_events_do_not_end_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tb").write_text("a file where the folder should be")
    live = Live(tmp_path)
    for epoch in range(2):
        live.epoch({"epoch": epoch, "loss": {"id": 1.0}}, {})
    assert capsys.readouterr().err.count("no TensorBoard events are written") == 1
