"""Retraining of searched and fixed networks; the test set is looked at once, at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnas.nn.network import Network
from dnas.nn.stages import Stages
from dnas.run import distributed, seeds
from dnas.run.checkpoints import checkpoints
from dnas.run.device import pick_device
from dnas.run.files import load_tensors, read_json
from dnas.run.folder import CALIBRATION, INHERITED, RunFolder
from dnas.run.loop import Loop
from dnas.run.paths import with_paths
from dnas.run.progress import HELD_OUT, console
from dnas.run.step import Stepper
from dnas.task import pick_task
from dnas.task.task import Needs
from retrain.config import RetrainConfig
from retrain.evaluate import latency
from retrain.inherit import check_holdout, load_inherited, with_its_holdout
from retrain.models import genotype_path, pick_model, stored_config
from retrain.start import same_network, start


class Retraining(Loop):
    """State of a retraining: network, optimiser, data.

    Args:
        fresh: start from the weights that the configuration names; else a checkpoint will be put back.
    """

    def __init__(self, config: RetrainConfig, fresh: bool = True) -> None:
        super().__init__()
        self.config: RetrainConfig = config
        kind, self.device = pick_task(config.task), pick_device(config.device)
        self.model = pick_model(config)
        self.title = f"retrain {self.model.name}"
        self.size = (self.model.input.height, self.model.input.width)
        channels = self.model.spec.out(self.model.input).channels.size
        measured = {"distance": config.distance, "flip_average": config.flip_average}
        needs = Needs(
            *self.size, channels, self.device, tested=config.test, test_on=config.test_on, protocol=measured,
            stages=Stages.of(self.model.spec, self.model.input).channels,
        )  # fmt: skip
        self.task = kind(config, needs)
        torch.manual_seed(seeds.derive(config.seed, "init"))
        net = self.task.network(self.model.spec, self.model.input, self.task.classes)
        net.with_stages = config.loss.on_stages
        self.started = start(net, config) if fresh else None
        if config.inherit and fresh:
            assert config.genotype is not None
            check_holdout(config, self.task)
            load_inherited(net, genotype_path(config.genotype).parent / INHERITED)
        net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.synchronised(net, self.device)
        self.stepper = Stepper(net, self.task.objective, config.optim, config.train, self.task.count("weights"))

    def step(self, number: int, inputs: Tensor, target: Any, at: float, last: bool) -> None:
        self.count(self.stepper(inputs, target, at, last))

    def look(self, metrics: dict[str, Any], last: bool) -> tuple[dict[str, float], Sequence[str]]:
        news, every = dict(metrics["loss"]), self.config.eval_every
        if self.task.held and every and (metrics["epoch"] + 1) % every == 0 and distributed.rank() == 0:
            metrics |= self.task.look(self.stepper.final, train=True)
            news[HELD_OUT + self.task.metric] = metrics["held_out"][self.task.metric]
        return news, ()

    def for_statistics(self) -> Network:
        return self.net

    def finish(self, folder: RunFolder) -> None:
        """Write cost.json and summary.json (and what every test item scored): what compare reads."""
        config, net = self.config, self.stepper.final
        summary: dict[str, Any] = {
            "model": self.model.name,
            "task": config.task,
            "metric": self.task.metric,
            "start": "weights" if config.weights else "inherited" if config.inherit else "scratch",
            "seed": config.seed,
            "epochs": self.position.epoch,
            "evaluated": "moving average" if config.train.ema else "last epoch",
            "protocol": self.task.protocol(),
            **self.task.look(net, train=True),
        }
        selection = self.task.selections(net)
        summary |= {"selection": selection} if selection else {}
        news = [f"held-out {self.task.headline(summary['held_out'])}"] if self.task.held else []
        if config.test:
            found = self.task.test(net, folder.path)
            information = {**summary.get("information", {}), **found.get("information", {})}
            summary |= found | ({"information": information} if information else {})
            news.append(self.task.headline(summary["test"]))
        cost = self.model.spec.cost(self.model.input)
        counted = {"macs": cost.macs.value, "params": cost.params.value}
        folder.write("cost.json", {**counted, "latency": latency(net, self.size)})
        if (measured := self.task.thresholds(net)) is not None:
            folder.write(CALIBRATION, measured)
        folder.write("summary.json", summary)  # last: with it a retraining is done
        console.print(f"retrain {self.model.name}: {', '.join(news)}  ->  {folder.path}", markup=False)


def retrain(config: RetrainConfig) -> RunFolder:
    """Retrain in a new folder. The genotype is copied there: the search may go on, or move away.

    Under `torchrun` all processes call this, and the first one writes.
    """
    config = replace(with_its_holdout(same_network(config)), device=distributed.start(config.device))
    state = Retraining(config)
    folder = RunFolder(config.out)
    with folder.locked():
        if distributed.rank() == 0:
            source = None if config.genotype is None else genotype_path(config.genotype)
            if source is not None and config.inherit and not folder.config_file.exists():
                folder.save_inherited(load_tensors(source.parent / INHERITED))
            copies = {} if source is None else {folder.genotype_file.name: read_json(source)}
            RunFolder.create(config.out, "retrain", config, state.task.fingerprint, copies)
        distributed.wait_for_all()
        state.run(folder)
    return folder


def resume(path: str | Path, space: str | None = None, changed: RetrainConfig | None = None) -> RunFolder:
    """Go on with the retraining in a folder, from its last checkpoint.

    Args:
        space: file of the space, if the network was searched in one of your own.
        changed: settings to go on with, and to keep, where they are other ones than before.

    Raises:
        UserError: no retraining there, other data than before, or a damaged checkpoint.
    """
    folder = RunFolder.open(path)
    config = stored_config(folder, space)
    if changed is not None:
        config = replace(with_paths(changed, folder.bases), out=config.out, genotype=config.genotype, space=space)
    fresh = not checkpoints(folder.path / "checkpoints")
    state = Retraining(replace(config, device=distributed.start(config.device)), fresh)
    with folder.locked():
        folder.continue_with(state, state.task.fingerprint, changed)
        state.run(folder)
    return folder
