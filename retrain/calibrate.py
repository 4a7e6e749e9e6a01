"""A threshold that means something: measured on people whom the network was not trained on, kept in its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from dnas.data.splits import Split, hold_out
from dnas.errors import UserError
from dnas.eval.threshold import HELD, calibrate
from dnas.run.config import expect
from dnas.run.device import Device
from dnas.run.folder import CALIBRATION, RunFolder
from dnas.run.progress import console
from retrain.load import TrainedRun, load


def calibrate_run(
    path: str, data: str | None = None, device: Device = "auto", space: str | None = None
) -> dict[str, Any]:
    """Measure the thresholds of a retraining and write them to its folder.

    Args:
        data: another data set, whose training pictures (or query and gallery, where it has none) are of other people;
            the run's held-out identities without.

    Raises:
        UserError: the run has seen people of the data.
    """
    run = load(path, device, space)
    config = run.config
    if data is None:
        if not config.holdout:
            raise UserError(
                f"{path}: its network has seen all people of its training data: give --data, of other people"
            )
        _, split = hold_out(run.data(tested=False).train, config.holdout, config.held_by)
        what = HELD
    else:
        other = run.data(data, tested=False)
        split, what = (other.train, "training pictures") if len(other.train) else (other.gallery, "gallery")
        if run.trained_on(other) or _has_seen(run, split):
            raise UserError(f"data: {data}: the network was trained on these people; give another data set")
        what = f"{what} of {other.name}"
    found = calibrate(run.network, run.decode(split), config.distance, config.flip_average, what)
    run.folder.write(CALIBRATION, found)
    return found


def _has_seen(run: TrainedRun, split: Split) -> bool:
    try:
        return run.has_seen(split)
    except UserError as error:
        console.print(f"calibrate: warning: whether these are other people is not known: {error}", markup=False)
        return False


def read_calibration(folder: RunFolder) -> dict[str, Any] | None:
    """What was measured, if anything was.

    Raises:
        UserError: a file that is something else.
    """
    file = folder.path / CALIBRATION
    if not file.exists():
        return None
    found = folder.json(CALIBRATION)
    expect(found, {"points": list, "curve": dict, "different_pairs": int, "same_pairs": int}, str(file))
    for number, point in enumerate(found["points"], start=1):
        expect(point, dict.fromkeys(("share", "similarity", "found"), float), f"{file}: points: {number}")
    return dict(found)


def strictest(folder: RunFolder) -> tuple[float, float] | None:
    """The threshold of the smallest share of false pairs, and that share."""
    found = read_calibration(folder)
    points = found["points"] if found else []
    if not points:
        return None
    point = min(points, key=lambda point: point["share"])
    return point["similarity"], point["share"]


def table(found: dict[str, Any]) -> Table:
    """The thresholds for people."""
    title = (
        f"{found['identities']:,} people: {found['different_pairs']:,} pairs of different people,"
        f" {found['same_pairs']:,} of one"
    )
    result = Table(
        "different people taken for one", "similarity", "95 % interval", "pairs of one person found", title=title
    )
    if not found["points"]:
        result.caption = "too few pairs of different people for any threshold"
    for point in found["points"]:
        interval = f"{point['similarity_low']:.3f} to {point['similarity_high']:.3f}"
        kept = f"{point['found']:.1%} ({point['found_low']:.1%} to {point['found_high']:.1%})"
        result.add_row(f"{point['share']:.1%}", f"{point['similarity']:.3f}", interval, kept)
    return result


def draw(found: dict[str, Any], file: Path) -> None:
    """The curve of missed over false pairs, as .svg or .png."""
    from dnas.draw.det import draw_det
    from dnas.draw.figures import save

    curve, points = found["curve"], [(point["share"], 1 - point["found"]) for point in found["points"]]
    save(draw_det({found.get("on", ""): (curve["false"], curve["missed"])}, points), file)
