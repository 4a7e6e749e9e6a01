"""The search: weights and logits trained in turn, the derived network written at every epoch."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dnas.data.images import Images, decode
from dnas.data.layouts import load_data
from dnas.data.sampler import PKSampler
from dnas.data.splits import check_matches, hold_out, split_images
from dnas.errors import UserError
from dnas.eval.embed import embed, retrieve_within
from dnas.eval.information import probe
from dnas.loss.objective import Objective
from dnas.nn.dcs_attention import selected_shares, set_temperature
from dnas.nn.pretrained import load_weights
from dnas.nn.reid_net import ReIDNet
from dnas.run import distributed, seeds
from dnas.run.checkpoints import checkpoints
from dnas.run.device import pick_device
from dnas.run.files import read_json, void
from dnas.run.folder import RunFolder
from dnas.run.paths import with_paths
from dnas.run.position import Pauses, Position, stoppable
from dnas.run.progress import HELD_OUT, EpochProgress, console
from dnas.run.schedules import geometric
from dnas.search.budget import Budget
from dnas.search.children import Children
from dnas.search.config import SearchConfig
from dnas.search.estimators import pick_estimator
from dnas.search.health import Health, Moves, examine
from dnas.search.relaxation import Relaxation, entropies
from dnas.search.steps import Steps
from dnas.search.supernet import SupernetBuilder
from dnas.space.genotype import Genotype
from dnas.space.spec import Choices, Space, decisions

LATENCY = "latency.json"
"""The latency table of a search, copied into its folder."""
MOST_PROBED = 20_000_000
"""Images times identities: the information of larger held-out sets is left to `dnas probe` of the retraining."""
STATE = ("position", "net", "relaxation", "moves", "objective", "weight_optimiser", "logit_optimiser")
"""What a checkpoint holds."""


class Search:
    """State of a search: supernet, relaxation, optimisers, data."""

    def __init__(self, config: SearchConfig, space: Space) -> None:
        self.config, self.device = config, pick_device(config.device)
        self.space = space.resized(config.input.height or space.height, config.input.width or space.width)
        known = decisions(space.spec)
        if not known:
            raise UserError(f"space: {space.name} has no open decision: there is nothing to search")
        self.budget = Budget(config.budget, self.space)
        self.relaxation = Relaxation(known).to(self.device)
        self.moves = Moves(known).to(self.device)
        self.estimator = pick_estimator(config.arch.mode)(self.relaxation, self.budget, config.arch)
        self.choices = self.budget.derive(self.relaxation)  # refuses an impossible budget before anything is read
        with distributed.one_first():
            data = load_data(config.data, tested=False, on_bad_image=config.input.on_bad_image, cameras=config.cameras)
        rest, held = hold_out(data.train, config.holdout, config.seed)
        self.deciding = f"{check_matches(held, held, 'held-out identities')} queries, {data.protocol.said}"
        size = (self.space.height, self.space.width)
        with distributed.one_first():
            self.fingerprint = data.fingerprint()
            self.held_out = decode(held, *size)
            if config.arch.data == "split":
                self.train, self.logit_images = (decode(part, *size) for part in split_images(rest, 0.2, config.seed))
            else:
                self.train = self.logit_images = decode(rest, *size)
        torch.manual_seed(seeds.derive(config.seed, "init"))
        builder = SupernetBuilder(self.relaxation.draw, config.arch.share)
        self.net = ReIDNet(self.space.spec, self.space.input, self.train.identities, builder)
        if config.weights is not None:
            started = load_weights(self.net, Path(config.weights), grid=config.weights_grid)
            (console.print if distributed.rank() == 0 else void)(f"search: {started}")
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.synchronised(self.net, self.device)
        dim = self.space.spec.out(self.space.input).channels.size
        self.objective = Objective(config.loss, self.train.identities, dim).to(self.device)
        self.steps = Steps(
            config, self.net, self.relaxation, self.objective, self.estimator, self.train, self.logit_images
        )
        self.weight_optimiser, self.logit_optimiser = self.steps.weight_optimiser, self.steps.logit_optimiser
        self.children = Children(self.space, self.net, self.train, self.steps.augment, config.seed)
        self.position = Position()
        self.warned: set[str] = set()
        self.selected: dict[str, float] = {}  # shares of channels, from the checkpoint that an epoch goes on from

    def run(self, folder: RunFolder) -> None:
        """Search to the end, from wherever this state is; the first of several processes writes."""
        epochs, position, log = self.config.optim.epochs, self.position, folder.path / "log.txt"
        with EpochProgress("search", epochs, position.epoch, log) as progress, stoppable() as stop:
            pauses = Pauses(self.config.checkpoint, position, stop, lambda: self._save(folder))
            while position.epoch < epochs:
                start = time.perf_counter()
                metrics = self._train_epoch(pauses)
                self.steps.watch.check()
                trained = time.perf_counter() - start
                health = self._look(metrics, last=position.epoch + 1 == epochs)
                position.finish()
                if distributed.rank() == 0:
                    folder.log(metrics, {"train_s": trained, "epoch_s": time.perf_counter() - start})
                    self._genotype(metrics).save(folder.genotype_file)
                    self._save(folder)
                    progress.epoch(position.epoch - 1, self._news(metrics))
                    for kind, warning in {line.split(":")[0]: line for line in health.warnings}.items():
                        if kind not in self.warned or position.epoch == epochs:  # when it comes, and at the end
                            progress.say(f"warning: {warning}")
                    self.warned = {line.split(":")[0] for line in health.warnings}
                stop.check()
        if distributed.rank() == 0:
            folder.save_inherited(self.children.recalibrated(self.choices).state_dict())
            counted: dict[str, float] = {**Genotype.of(self.space, self.choices).cost}
            folder.write("cost.json", counted | self.budget.expected(self.relaxation))
        distributed.wait_for_all()

    def _look(self, metrics: dict[str, Any], last: bool) -> Health:
        """Derive the network of this epoch and, if it is time, look at it on the held-out identities."""
        config = self.config
        self.choices = self.budget.derive(self.relaxation)
        if last and config.arch.samples:
            metrics["sampled"] = self._best_of_samples()
        if last or (config.eval_every and (self.position.epoch + 1) % config.eval_every == 0):
            child = self.children.recalibrated(self.choices)
            metrics["held_out"] = retrieve_within(child, self.held_out).metrics()
            small = len(self.held_out) * self.held_out.identities <= MOST_PROBED
            if small and distributed.rank() == 0:
                beta = self.objective.statistics.beta
                metrics["information"] = {"held_out": probe(embed(child, self.held_out), self.held_out, beta)}
            metrics["held_out_supernet"] = self.evaluate_supernet()
        health = self._health(metrics, last)
        metrics["health"] = health.plain()
        return health

    def _save(self, folder: RunFolder) -> None:
        self.steps.watch.check()
        if distributed.rank() == 0:
            folder.save(self.state(), self.position, self.config.checkpoint.keep)

    def state(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in STATE}
        return {"choices": dict(self.choices), "selected": selected_shares(self.net), **parts}

    def restore(self, state: dict[str, Any]) -> None:
        for name in STATE:
            getattr(self, name).load_state_dict(state[name])
        self.choices, self.selected = state["choices"], state["selected"]

    def evaluate(self, choices: Choices) -> dict[str, float]:
        """Held-out retrieval of a child with inherited weights and recalibrated batch norm."""
        return retrieve_within(self.children.recalibrated(choices), self.held_out).metrics()

    def evaluate_supernet(self) -> dict[str, float]:
        """Held-out retrieval of the supernet as it is: `full` by its probabilities, else the derived network in it."""
        if not self.estimator.one_hot:
            self.relaxation.mix()
        else:
            self.relaxation.fix(self.choices)
        return retrieve_within(self.net, self.held_out).metrics()

    def _best_of_samples(self) -> list[dict[str, Any]]:
        """Sample networks within the budget, and take the best on the held-out identities with inherited weights."""
        generator = seeds.generator(self.config.seed, "derive")
        children = [self.choices]
        for _ in range(self.config.arch.samples):
            child = self.budget.derive(self.relaxation, self.relaxation.perturbed(generator))
            children += [child] if child not in children else []
        ranks = range(distributed.rank(), len(children), distributed.world())
        own = [self.evaluate(child)["mAP"] if n in ranks else 0.0 for n, child in enumerate(children)]
        scores = distributed.sum_numbers(own)
        self.choices = children[scores.index(max(scores))]
        return [{"choices": child, "mAP": score} for child, score in zip(children, scores, strict=True)]

    def _train_epoch(self, pauses: Pauses) -> dict[str, Any]:
        """The steps of an epoch that are still to be done."""
        config, position = self.config, self.position
        epoch, done = position.epoch, position.step
        arch, epochs = config.arch, config.optim.epochs
        temperature = geometric(arch.temperature, arch.temperature_end, epoch, epochs)
        mask_temperature = geometric(config.optim.dcs_temperature, config.optim.dcs_temperature_end, epoch, epochs)
        set_temperature(self.net, mask_temperature, self.selected if done else None)
        idle_dropout = arch.idle_dropout * (1 - epoch / max(epochs - 1, 1))
        with_logits = epoch >= math.ceil(arch.weights_only * epochs)
        joint = with_logits and arch.data == "joint" and self.estimator.joint
        alone = with_logits and not joint
        batches = self._sampler(self.train).epoch(epoch)
        logit_batches = self._logit_batches(len(batches))
        if done == 0 and config.loss.refresh == "epoch" and self.objective.eta((epoch + 1) / epochs) > 0:
            images = self.train.shard(distributed.rank(), distributed.world())
            embedding = embed(self.children.recalibrated(self.choices), images)
            clustering = seeds.generator(config.seed, "cluster", epoch)
            self.objective.statistics.refresh(embedding, images.labels.to(self.device), clustering)
        self.net.train()
        for step, indices in enumerate(batches[done:], start=done):
            torch.manual_seed(seeds.derive(config.seed, "noise", epoch, step))
            noise = seeds.generator(config.seed, "draw", epoch, step)
            at = epoch + step / len(batches)
            self.estimator.draw(1 + alone * self.estimator.lessons, temperature, noise, idle_dropout)
            self.estimator.use(0, gradient=joint)
            position.count(self.steps.weights(indices, epoch, step, at, joint), self.objective.watched)
            if alone:
                position.count(self.steps.logits(logit_batches[step], epoch, step, at))
            pauses.after_step(len(batches))
        return {
            "epoch": epoch,
            "temperature": temperature,
            "mask_temperature": mask_temperature,
            **position.summary(),
            **self._architecture(),
        }

    def _logit_batches(self, count: int) -> list[NDArray[np.int64]]:
        """As many batches for the logits as for the weights: passes over the smaller share, one after the other."""
        sampler = self._sampler(self.logit_images)
        rounds = -(-count // len(sampler))
        return [batch for turn in range(rounds) for batch in sampler.epoch(self.position.epoch * 1000 + turn)]

    def _architecture(self) -> dict[str, Any]:
        """Where the choices stand, for the log."""
        probabilities = self.relaxation.probabilities()
        shares = selected_shares(self.net)
        return {
            "probabilities": {key: p.tolist() for key, p in probabilities.items()},
            "entropy": entropies(probabilities),
            "moves": self.moves.follow(self.relaxation.logits()),
            **self.budget.expected(self.relaxation),
            "budget": self.config.budget.kind,
            "target": self.config.budget.limit,
            "selected": {name: share for name, share in shares.items() if not math.isnan(share)},
        }

    def _health(self, metrics: dict[str, Any], last: bool) -> Health:
        arch, known = self.config.arch, self.relaxation.decisions
        index = {key: decision.index(self.choices[key]) for key, decision in known.items()}
        probabilities = self.relaxation.probabilities()
        expected = float(self.budget.count.expected({key: p.double() for key, p in probabilities.items()}))
        return examine(
            self.space.spec,
            self.space.input,
            known,
            self.choices,
            probabilities,
            metrics["moves"],
            (expected, float(self.budget.count.at(index))),
            (metrics["temperature"] if self.estimator.tempered else 0.0, arch.temperature),
            last,
        )

    def _genotype(self, metrics: dict[str, Any]) -> Genotype:
        summary = {
            "seed": self.config.seed, "epochs": self.position.epoch, "of_epochs": self.config.optim.epochs,
            "data": {"name": self.fingerprint["name"], "sha256": self.fingerprint["sha256"]},
            "budget": {self.config.budget.kind: self.config.budget.limit}, "logits": self.relaxation.logits(),
            "entropy": metrics["entropy"], "moves": metrics["moves"], "health": metrics["health"],
            "held_out": metrics.get("held_out"), "held_out_supernet": metrics.get("held_out_supernet"),
            **self.budget.expected(self.relaxation),
        }  # fmt: skip
        return Genotype.of(self.space, self.choices, summary)

    def _sampler(self, images: Images) -> PKSampler:
        return PKSampler(
            images.labels.numpy(), self.config.optim.identities, self.config.optim.images, self.config.seed
        )

    def _news(self, metrics: dict[str, Any]) -> dict[str, float]:
        news = {
            **metrics["loss"],
            "E[MMACs]": metrics["expected_macs"] / 1e6,
            "entropy": sum(metrics["entropy"].values()) / max(len(metrics["entropy"]), 1),
        }
        return news | ({HELD_OUT: metrics["held_out"]["mAP"]} if "held_out" in metrics else {})


def search(config: SearchConfig, space: Space) -> RunFolder:
    """Run a search in a new folder. Under `torchrun` all processes call this, and the first one writes."""
    config = replace(config, device=distributed.start(config.device))
    state, folder = Search(config, space), RunFolder(config.out)
    with folder.locked():
        if distributed.rank() == 0:
            table = config.budget.latency_table
            copies = {} if table is None else {LATENCY: read_json(Path(table))}
            RunFolder.create(config.out, "search", config, state.fingerprint, copies)
        distributed.wait_for_all()
        return _finish(state, folder)


def resume(config: SearchConfig, space: Space, changed: bool = False) -> RunFolder:
    """Go on with the search in `config.out`, from its last checkpoint.

    Args:
        changed: the settings are other ones than before, and are to be kept.

    Raises:
        UserError: no search there, other data than before, or a damaged checkpoint.
    """
    wanted = config if changed else None
    config = replace(config, device=distributed.start(config.device))
    folder = RunFolder.open(config.out)
    config = with_paths(config, folder.bases)
    if config.budget.latency_table is not None:  # the copy: the file it came from may have changed since
        config = replace(config, budget=replace(config.budget, latency_table=str(folder.path / LATENCY)))
    if checkpoints(folder.path / "checkpoints"):
        config = replace(config, weights=None)  # the checkpoint has them; their file may be gone
    state = Search(config, space)
    with folder.locked():
        folder.continue_with(state, state.fingerprint, wanted)
        return _finish(state, folder)


def _finish(state: Search, folder: RunFolder) -> RunFolder:
    say = console.print if distributed.rank() == 0 else void
    processes = f", {distributed.world()} processes" if distributed.world() > 1 else ""
    say(
        f"search: space {state.space.name}, {len(state.relaxation.decisions)} decisions,"
        f" {state.train.identities} training and {state.held_out.identities} held-out identities"
        f" ({state.deciding}){processes}"
    )
    state.run(folder)
    file = Path(folder.genotype_file)
    say(f"search: wrote {file}  (show it: dnas show {file})")
    return folder
