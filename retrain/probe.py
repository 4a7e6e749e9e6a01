"""The information bottleneck of a trained run, on its training and on identities it never saw."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from dnas.data.images import Images
from dnas.data.splits import hold_out, together
from dnas.errors import UserError
from dnas.eval.information import probe
from dnas.eval.selection import selection_report
from dnas.loss.ibb import default_beta
from dnas.run.device import Device
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
        {"information": {set: values}, "selected": {set: {site: share}}}; the sets are train, held_out (if the
        run held identities out) and test (query and gallery together).
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
    config, found = run.config, run.data(data, tested=False)
    sets: dict[str, Images] = {}
    if len(found.train):
        own = run.trained_on(found)
        rest, held = hold_out(found.train, config.holdout, config.held_by) if own else (found.train, None)
        sets |= {"train": run.decode(rest)} | ({"held_out": run.decode(held)} if held else {})
    if len(found.query) or len(found.gallery):
        sets["test"] = run.decode(together(found.query, found.gallery))
    return sets


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
