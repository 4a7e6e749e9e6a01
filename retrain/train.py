"""One training loop for searched and fixed networks; query and gallery are looked at once, at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from dnas.data.augment import Augmenter, draw
from dnas.data.images import Images, decode
from dnas.data.layouts import load_data
from dnas.data.sampler import PKSampler
from dnas.data.splits import Split, check_matches, hold_out, together
from dnas.errors import UserError
from dnas.eval.embed import embed, retrieve_within
from dnas.eval.information import probe
from dnas.loss.objective import Objective
from dnas.nn.dcs_attention import selected_shares, set_temperature
from dnas.nn.reid_net import ReIDNet
from dnas.run import distributed, seeds
from dnas.run.checkpoints import checkpoints
from dnas.run.device import pick_device
from dnas.run.files import load_tensors, read_json
from dnas.run.folder import INHERITED, RunFolder
from dnas.run.paths import with_paths
from dnas.run.position import Pauses, Position, stoppable
from dnas.run.progress import HELD_OUT, EpochProgress, console
from dnas.run.schedules import geometric
from retrain.config import RetrainConfig
from retrain.evaluate import latency, retrieve, save_ranking
from retrain.models import genotype_path, pick_model, stored_config
from retrain.start import same_network, start
from retrain.step import Stepper


class Retraining:
    """State of a retraining: network, optimiser, data.

    Args:
        fresh: start from the weights that the configuration names; else a checkpoint will be put back.
    """

    def __init__(self, config: RetrainConfig, fresh: bool = True) -> None:
        self.config, self.device = config, pick_device(config.device)
        self.model = pick_model(config)
        bad = config.input.on_bad_image
        with distributed.one_first():
            data = load_data(config.data, config.test_on, tested=config.test, on_bad_image=bad, cameras=config.cameras)
        rest, held = hold_out(data.train, config.holdout, config.seed)
        if len(held):
            check_matches(held, held, "held-out identities")
        if config.test:
            check_matches(data.query, data.gallery, "query and gallery")
        self.size = (self.model.input.height, self.model.input.width)
        with distributed.one_first():
            self.fingerprint = data.fingerprint()
            self.train = decode(rest, *self.size)
            self.held_out: Images | None = decode(held, *self.size) if len(held) else None
        self.cameras = data.protocol.cameras
        self.test: tuple[Split, Split] = (data.query, data.gallery)
        torch.manual_seed(seeds.derive(config.seed, "init"))
        net = ReIDNet(self.model.spec, self.model.input, self.train.identities)
        self.started = start(net, config) if fresh else None
        if config.inherit and fresh:
            assert config.genotype is not None
            load_inherited(net, genotype_path(config.genotype).parent / INHERITED)
        net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.synchronised(net, self.device)
        dim = self.model.spec.out(self.model.input).channels.size
        self.objective = Objective(config.loss, self.train.identities, dim).to(self.device)
        self.step = Stepper(net, self.objective, config.optim, config.train)
        self.net = net
        optim = config.optim
        self.sampler = PKSampler(self.train.labels.numpy(), optim.identities, optim.images, config.seed)
        self.augment = Augmenter(config.input)
        self.position = Position()

    def run(self, folder: RunFolder) -> None:
        """Train to the end, from wherever this state is, then evaluate (the first of several processes)."""
        epochs = self.config.optim.epochs
        log = folder.path / "log.txt"
        position, title = self.position, f"retrain {self.model.name}"
        with EpochProgress(title, epochs, position.epoch, log) as progress, stoppable() as stop:
            pauses = Pauses(self.config.checkpoint, position, stop, lambda: self._save(folder))
            if self.started is not None and distributed.rank() == 0:
                progress.say(str(self.started))
            while position.epoch < epochs:
                start = time.perf_counter()
                metrics = self._train_epoch(pauses)
                self.step.watch.check()
                trained = time.perf_counter() - start
                position.finish()
                if distributed.rank() == 0:
                    self._finish_epoch(folder, progress, metrics, trained, start)
                distributed.wait_for_all()
                stop.check()
        if distributed.rank() == 0:
            self.evaluate(folder)
        distributed.wait_for_all()

    def _finish_epoch(
        self, folder: RunFolder, progress: EpochProgress, metrics: dict[str, Any], trained: float, start: float
    ) -> None:
        """Look at the held-out identities if it is time, log, and save."""
        news = dict(metrics["loss"])
        epoch = self.position.epoch
        if self.held_out and self.config.eval_every and epoch % self.config.eval_every == 0:
            metrics["held_out"] = self._retrieve_held_out(self.held_out)
            metrics["information"] = {"train": self._probe(self.train), "held_out": self._probe(self.held_out)}
            news[HELD_OUT] = metrics["held_out"]["mAP"]
        folder.log(metrics, {"train_s": trained, "epoch_s": time.perf_counter() - start})
        self._save(folder)
        progress.epoch(epoch - 1, news)

    def _save(self, folder: RunFolder) -> None:
        self.step.watch.check()
        if distributed.rank() == 0:
            state = {name: part.state_dict() for name, part in self._parts().items()}
            folder.save(state, self.position, self.config.checkpoint.keep)

    def _parts(self) -> dict[str, Any]:
        """What a checkpoint holds, each with `state_dict` and `load_state_dict`."""
        return {"position": self.position, **self.step.parts()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _train_epoch(self, pauses: Pauses) -> dict[str, Any]:
        """The steps of an epoch that are still to be done."""
        config, position, optim = self.config, self.position, self.config.optim
        epoch, done = position.epoch, position.step
        for net in {self.net, self.step.final}:
            set_temperature(net, geometric(optim.dcs_temperature, optim.dcs_temperature_end, epoch, optim.epochs))
        if done == 0 and config.loss.refresh == "epoch" and self.objective.eta((epoch + 1) / optim.epochs) > 0:
            clustering = seeds.generator(config.seed, "cluster", epoch)
            images = self.train.shard(distributed.rank(), distributed.world())
            labels = images.labels.to(self.device)
            self.objective.statistics.refresh(embed(self.net, images), labels, clustering)
        batches = self.sampler.epoch(epoch)  # global ones: every rank takes identities of its own from each
        rows = distributed.own(batches.shape[1])
        self.net.train()
        for step, batch in enumerate(self.train.stream(batches[done:, rows], self.device), start=done):
            torch.manual_seed(seeds.derive(config.seed, "noise", epoch, step))
            numbers = draw(batches.shape[1], seeds.generator(config.seed, "augment", epoch, step))[rows]
            inputs = self.augment(batch, numbers)
            terms = self.step(inputs, batch.labels, epoch + step / len(batches), last=step + 1 == len(batches))
            position.count(terms, self.objective.watched)
            pauses.after_step(len(batches), ready=self.step.waiting == 0)
        return {
            "epoch": epoch,
            "lr": optim.lr_at(epoch),
            **position.summary(),
            "selected": selected_shares(self.net),
        }

    def _retrieve_held_out(self, images: Images) -> dict[str, float]:
        config = self.config
        return retrieve_within(self.step.final, images, config.distance, config.flip_average).metrics()

    def _probe(self, images: Images) -> dict[str, float]:
        return probe(embed(self.step.final, images), images, self.objective.statistics.beta)

    def evaluate(self, folder: RunFolder) -> None:
        """Write cost.json and summary.json (and per_query.npz): what compare reads."""
        config, net = self.config, self.step.final
        information = {"train": self._probe(self.train)}
        summary: dict[str, Any] = {
            "model": self.model.name,
            "start": "weights" if config.weights else "inherited" if config.inherit else "scratch",
            "seed": config.seed,
            "epochs": self.position.epoch,
            "evaluated": "moving average" if config.train.ema else "last epoch",
            "protocol": {"distance": config.distance, "flip_average": config.flip_average, "cameras": self.cameras},
            "information": information,
        }
        news = []
        if self.held_out:
            summary["held_out"] = self._retrieve_held_out(self.held_out)
            information["held_out"] = self._probe(self.held_out)
            news.append(f"held-out mAP {summary['held_out']['mAP']:.1%}")
        if config.test:
            test = decode(together(*self.test), *self.size)
            ranking, embedding_ND = retrieve(net, test, len(self.test[0]), config.distance, config.flip_average)
            summary["test"] = ranking.metrics()
            summary["queries_without_match"] = int((~ranking.valid).sum())
            information["test"] = probe(F.normalize(embedding_ND, dim=1), test, self.objective.statistics.beta)
            save_ranking(folder.path / "per_query.npz", ranking, self.test[0])
            news += [] if self.cameras == "other" else ["cameras ignored"]
            news.append(f"mAP {summary['test']['mAP']:.1%}, Rank-1 {summary['test']['rank1']:.1%}")
        cost = self.model.spec.cost(self.model.input)
        counted = {"macs": cost.macs.value, "params": cost.params.value}
        folder.write("cost.json", {**counted, "latency": latency(net, self.size)})
        folder.write("summary.json", summary)
        console.print(f"retrain {self.model.name}: {', '.join(news)}  ->  {folder.path}")


def load_inherited(net: ReIDNet, file: Path) -> None:
    """Weights from the supernet; the classifier is new, the search saw fewer identities.

    Raises:
        UserError: no such file, or weights of another network.
    """
    if not file.is_file():
        raise UserError(f"inherit: {file}: no such file; give --genotype the folder of a finished search")
    state = {name: value for name, value in load_tensors(file).items() if not str(name).startswith("classifier.")}
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
        raise UserError(f"{file}: expected a mapping of names to tensors")
    try:
        missing = set(net.load_state_dict(state, strict=False).missing_keys) - {"classifier.weight"}
    except RuntimeError as error:
        raise UserError(f"{file}: does not fit this network ({str(error).splitlines()[-1].strip()})") from error
    if missing:
        raise UserError(f"{file}: does not fit this network, entry '{min(missing)}' is missing")


def retrain(config: RetrainConfig) -> RunFolder:
    """Retrain in a new folder. The genotype is copied there: the search may go on, or move away.

    Under `torchrun` all processes call this, and the first one writes.
    """
    config = replace(same_network(config), device=distributed.start(config.device))
    state = Retraining(config)
    folder = RunFolder(config.out)
    with folder.locked():
        if distributed.rank() == 0:
            source = None if config.genotype is None else genotype_path(config.genotype)
            if source is not None and config.inherit and not folder.config_file.exists():
                folder.save_inherited(load_tensors(source.parent / INHERITED))
            copies = {} if source is None else {folder.genotype_file.name: read_json(source)}
            RunFolder.create(config.out, "retrain", config, state.fingerprint, copies)
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
        folder.continue_with(state, state.fingerprint, changed)
        state.run(folder)
    return folder
