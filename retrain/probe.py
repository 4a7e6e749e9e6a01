"""The information bottleneck of a trained run, on its training and on identities it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from dnas.data.hashes import content_hashes
from dnas.data.images import Images
from dnas.data.splits import ReIDData, hold_out, together
from dnas.errors import UserError
from dnas.eval.information import probe
from dnas.eval.selection import selection_report
from dnas.loss.ibb import default_beta
from dnas.run.device import Device
from dnas.run.progress import console
from dnas.task.images import ImageTask
from dnas.task.task import Task
from retrain.load import TrainedRun, load

Probe = dict[str, dict[str, float]]


def probe_run(
    path: str | Path, data: str | None = None, device: Device = "auto", space: str | None = None
) -> dict[str, Probe]:
    """IB, its parts, both bounds and perplexity for each set of images, and the share that selections open.

    Args:
        path: folder of a retraining.
        data: another data set to look at; the run's own without.
        space: file of the space, if the network was searched in one of your own.

    Returns:
        {"information": {set: values}, "selected": {set: {site: share}}}; the sets are train, held_out (identities
        among them that the run held out) and test (query and gallery together).
    """
    run = load(path, device, space)
    config = run.config
    sets = _of_task(run.task(data)) if config.task != "reid" else _of_identities(run, data)
    trained_on = len(run.network.classifier.weight)
    beta = config.loss.beta or default_beta(config.loss.assign or trained_on)
    information: Probe = {}
    selected: Probe = {}
    for name, images in sets.items():
        information[name] = probe(run.embed(images), images, beta)
        selected[name] = {site: use["share"] for site, use in selection_report(run.network, images).items()}
    return {"information": information, "selected": selected}


def _of_task(task: Task) -> dict[str, Images]:
    """The sets of a task on images.

    Raises:
        UserError: a task that is not.
    """
    if not isinstance(task, ImageTask):
        raise UserError(f"probe: found task {task.config.task}, allowed: tasks on labelled images")
    return task.sets()


def _of_identities(run: TrainedRun, data: str | None) -> dict[str, Images]:
    found = run.data(data, tested=False)
    sets: dict[str, Images] = {}
    if len(found.train):
        held_out = _held_out(run, found)
        sets["train"] = run.decode(found.train.subset(~held_out))
        if held_out.any():
            sets["held_out"] = run.decode(found.train.subset(held_out))
    if len(found.query) or len(found.gallery):
        sets["test"] = run.decode(together(found.query, found.gallery))
    return sets


def _held_out(run: TrainedRun, found: ReIDData) -> NDArray[np.bool_]:
    """Which training images of a data set the run held out: known by content, as the set may be a part of the run's."""
    config, none = run.config, np.zeros(len(found.train), bool)
    if not config.holdout:
        return none
    try:
        own = found if run.trained_on(found) else run.data(tested=False)
    except UserError as error:
        console.print(f"probe: warning: which of these people were held out is not known: {error}", markup=False)
        return none
    _, held = hold_out(own.train, config.holdout, config.held_by)
    hidden = {*content_hashes(held.files)}
    return np.array([content in hidden for content in content_hashes(found.train.files)], bool)


def tables(result: dict[str, Probe]) -> list[Table]:
    """The result for people."""
    information, selected = result["information"], result["selected"]
    main = Table(title="information in units of log(identities); perplexity of phi in identities")
    main.add_column("quantity")
    for name in information:
        main.add_column(name, justify="right")
    for quantity in next(iter(information.values())):
        digits = 0 if quantity == "identities" else 4
        main.add_row(quantity, *(f"{values[quantity]:.{digits}f}" for values in information.values()))
    if not any(selected.values()):
        return [main]
    shares = Table(title="share of channels that attention selects")
    shares.add_column("module")
    for name in selected:
        shares.add_column(name, justify="right")
    for module in next(iter(selected.values())):
        values = [share[module] for share in selected.values()]
        remark = " (all)" if min(values) == 1 else " (none)" if max(values) == 0 else ""
        shares.add_row(module + remark, *(f"{value:.1%}" for value in values))
    return [main, shares]
