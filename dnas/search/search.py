"""The search: weights and logits trained in turn or together, the derived network written at every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnas.errors import UserError
from dnas.nn.network import Network
from dnas.nn.pretrained import load_weights
from dnas.nn.stages import Stages
from dnas.run import distributed, seeds
from dnas.run.checkpoints import checkpoints
from dnas.run.config import from_plain
from dnas.run.device import Device, pick_device
from dnas.run.files import read_json, void
from dnas.run.folder import RunFolder
from dnas.run.loop import Loop
from dnas.run.paths import with_paths
from dnas.run.progress import HELD_OUT, console
from dnas.run.schedules import geometric
from dnas.run.step import Beside, Stepper
from dnas.search.beginning import BATCHES, NETWORKS, Beginning, losses
from dnas.search.budget import Budget
from dnas.search.children import Children
from dnas.search.config import SearchConfig
from dnas.search.effects import Effects
from dnas.search.estimators import pick_estimator
from dnas.search.fidelity import FIDELITY, Fidelity, FidelityConfig, Judge, measure
from dnas.search.logits import LogitStep
from dnas.search.prior import NoPriorError, believed
from dnas.search.random_networks import TooRareError, random_networks
from dnas.search.relaxation import Relaxation
from dnas.search.standing import stand
from dnas.search.supernet import SupernetBuilder, compile_options
from dnas.search.verdict import Verdict
from dnas.space.genotype import Genotype, read_genotype
from dnas.space.spec import Choices, Space, decisions
from dnas.task import pick_task
from dnas.task.task import Needs

LATENCY = "latency.json"
"""The latency table of a search, copied into its folder."""


class Search(Loop):
    """State of a search: supernet, relaxation, optimisers, data."""

    title = "search"

    def __init__(self, config: SearchConfig, space: Space) -> None:
        super().__init__()
        self.config: SearchConfig = config
        kind, estimator, self.device = (
            pick_task(config.task),
            pick_estimator(config.arch.mode),
            pick_device(config.device),
        )
        self.space = space.resized(config.input.height or space.height, config.input.width or space.width)
        known = decisions(space.spec)
        if not known:
            raise UserError(f"space: {space.name} has no open decision: there is nothing to search")
        self.relaxation = Relaxation(known).to(self.device)
        self.budget = Budget(config.budget, self.space)
        self.estimator = estimator(self.relaxation, self.budget, config.arch)
        self.beginning = Beginning(config.optim.epochs, config.arch.weights_only)
        self.judged = random_networks(known, NETWORKS, config.seed, different=False)
        self.weights_draws = self._weights_draws()
        self.verdict = Verdict(config, self.space, self.relaxation, self.budget, self.estimator)
        channels = self.space.spec.out(self.space.input).channels.size
        needs = Needs(
            self.space.height, self.space.width, channels, self.device, config.arch.data == "split", tested=False,
            stages=Stages.of(self.space.spec, self.space.input).channels,
        )  # fmt: skip
        self.task = kind(config, needs)
        torch.manual_seed(seeds.derive(config.seed, "init"))
        builder = SupernetBuilder(self.relaxation.draw, config.arch.share)
        net = self.task.network(self.space.spec, self.space.input, self.task.classes, builder)
        net.with_stages = config.loss.on_stages
        if config.weights is not None:
            self.started = load_weights(net, Path(config.weights), grid=config.weights_grid)
        net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.synchronised(net, self.device)
        if config.train.compile:
            compile_options(net)
        batches = self.task.count("weights")
        self.stepper = Stepper(net, self.task.objective, config.optim, config.train, batches, changing=True)
        self.logits = LogitStep(self.relaxation, self.estimator, self.stepper, config.arch.lr)
        self.children = Children(self.space, lambda: self.stepper.final, self.task, config.seed)

    @property
    def choices(self) -> Choices:
        """Of the derived network."""
        return self.verdict.choices

    def _weights_draws(self) -> str:
        """What the draws that train weights follow, once logits learn.

        Raises:
            UserError: the estimator learns by the very draws that train weights, and they must follow the logits.
        """
        arch, estimator = self.config.arch, self.estimator
        of_one_step = arch.data == "joint" and estimator.joint and not estimator.off_policy
        if of_one_step or not estimator.one_hot:
            if arch.weights_draws not in (None, "logits"):
                raise UserError(
                    f"arch.weights_draws: found {arch.weights_draws}, allowed in a {arch.data} search by {arch.mode}:"
                    " logits"
                )
            return "logits"
        return arch.weights_draws or "both"

    def begin_epoch(self, epoch: int, start: int) -> None:
        arch, epochs = self.config.arch, self.config.optim.epochs
        if arch.prior is not None and (epoch, start) == (0, 0):
            self._believe()
        self.temperature = geometric(arch.temperature, arch.temperature_end, epoch, epochs)
        self.idle_dropout = arch.idle_dropout * (1 - epoch / max(epochs - 1, 1))
        learning = self.beginning.begins(epoch)
        self.joint = learning and arch.data == "joint" and self.estimator.joint
        self.apart = learning and not self.joint
        self.uniform = self._uniform(epoch) if learning else float(arch.prior is not None)
        self.logit_batches: Iterator[tuple[Tensor, Any]] = iter(())
        if self.apart:
            self.logit_batches = self.task.batches("logits", epoch, start, self.task.count("weights"))

    def _believe(self) -> None:
        """Start the logits where the prior says."""
        arch, say = self.config.arch, console.print if distributed.rank() == 0 else void
        try:
            with distributed.apart():  # every rank scores the whole batch
                effects = believed(self.space, self.task, self.budget, self.config.seed)
        except NoPriorError as error:
            if arch.prior != "auto":
                raise
            say(f"search: all options start alike: naswot says nothing here: {error.reason}")
            return
        self.verdict.prior = effects
        self.relaxation.start(effects.logits(arch.prior_weight))
        said = f"options explain {effects.explained:.0%} of the score of random networks that were left out"
        say(f"search: prior naswot: {said}")

    def _uniform(self, epoch: int) -> float:
        """Share of the uniform distribution in the draws that train the weights, once logits learn."""
        draws, epochs = self.weights_draws, self.config.optim.epochs
        if draws == "both":
            begun = self.beginning.epoch
            return 1 - (epoch - begun) / max(epochs - 1 - begun, 1)
        return float(draws == "uniform")

    def loss(self, output: Any, target: Any) -> Tensor:
        """The sum of the terms, of what the supernet puts out; no statistics follow it."""
        return torch.stack(list(self.task.objective(output, target, 0.0, follow=False).values())).sum()

    def _judge_beginning(self, epoch: int) -> None:
        """Ask whether the supernet's verdict on random networks keeps to what it was."""
        torch.manual_seed(seeds.derive(self.config.seed, "beginning"))
        batches = self.task.batches("logits", 0, 0, BATCHES)  # the same ones every time
        self.beginning.tell(epoch, losses(self.judged, self.relaxation, self.net, self.loss, batches))

    def step(self, number: int, inputs: Tensor, target: Any, at: float, last: bool) -> None:
        """Train the weights under one draw; and the logits, by the same step or by one of their own."""
        noise = seeds.generator(self.config.seed, "draw", self.position.epoch, number)
        count = 1 + self.apart * self.estimator.lessons
        self.estimator.draw(count, self.temperature, noise, self.idle_dropout, self.uniform)
        self.estimator.use(0, gradient=self.joint)
        beside = None
        if self.joint:
            beside = Beside(self.logits.optimiser, self.estimator.terms(at / self.config.optim.epochs))
        self.count(self.stepper(inputs, target, at, last, beside))
        if self.apart:
            self.position.count(self.logits(*next(self.logit_batches), at))

    def epoch_metrics(self) -> dict[str, Any]:
        tempered = {"temperature": self.temperature} if self.estimator.tempered else {}
        return {**tempered, **self.verdict.architecture()}

    def look(self, metrics: dict[str, Any], last: bool) -> tuple[dict[str, float], Sequence[str]]:
        if self.beginning.asks(metrics["epoch"]):
            self._judge_beginning(metrics["epoch"])
            metrics["agreement"] = self.beginning.agreement
        if self.pauses is not None:
            self.verdict.pause = self.pauses.between_looks
        health = self.verdict.judge(metrics, self.task, self.stepper.final, self.children, last)
        news = {
            **metrics["loss"],
            "E[MMACs]": metrics["expected_macs"] / 1e6,
            "entropy": sum(metrics["entropy"].values()) / max(len(metrics["entropy"]), 1),
        }
        if "held_out" in metrics:
            news[HELD_OUT + self.task.metric] = metrics["held_out"][self.task.metric]
        return news, health.warnings

    def written(self, folder: RunFolder, metrics: Mapping[str, Any]) -> None:
        self.verdict.genotype(dict(metrics), self.task).save(folder.genotype_file)

    def for_statistics(self) -> Network:
        return self.children.recalibrated(self.choices)

    def in_inference(self) -> Network:
        """The supernet as the derived network."""
        self.relaxation.fix(self.choices)
        return self.stepper.final

    def finish(self, folder: RunFolder) -> None:
        """Leave the derived network's weights, what it is worth, and, last, its costs: with these a search is done."""
        folder.save_inherited(self.children.recalibrated(self.choices).state_dict())
        fidelity = None
        if self.config.verify:
            wanted = FidelityConfig(self.config.verify, self.config.verify_epochs)
            try:
                fidelity = self.fidelity(wanted, folder)
                report_fidelity(folder, fidelity)
            except TooRareError as error:  # of the smallest network's cost there is no other
                console.print(f"search: warning: the found network is not verified: {error}", highlight=False)
        with distributed.apart():
            standing = stand(self.judge, self.choices, fidelity)
        _report(folder, "standing", standing.plain(), [standing.line()])
        counted: dict[str, float] = {**Genotype.of(self.space, self.choices).cost}
        folder.write("cost.json", counted | self.budget.expected(self.relaxation))

    @property
    def judge(self) -> Judge:
        return Judge(self.config, self.space, self.budget, self.task, self.children, self.position.epoch)

    def fidelity(self, asked: FidelityConfig, folder: RunFolder) -> Fidelity:
        """Hold the verdict against short trainings of networks on their own (`dnas.search.fidelity`)."""
        return measure(self.judge, self.choices, asked, folder.path / FIDELITY, console.print)

    def parts(self) -> dict[str, Any]:
        own = {
            "relaxation": self.relaxation,
            "beginning": self.beginning,
            "moves": self.verdict.moves,
            "logit_optimiser": self.logits.optimiser,
        }
        return super().parts() | own

    def state(self) -> dict[str, Any]:
        prior = self.verdict.prior
        return {"choices": dict(self.choices), "prior": prior and asdict(prior), **super().state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.verdict.choices = state["choices"]
        self.verdict.prior = Effects(**state["prior"]) if state.get("prior") else None


def report_fidelity(folder: RunFolder, fidelity: Fidelity) -> None:
    """Put the verdict into the genotype, and say it."""
    _report(folder, "fidelity", fidelity.verdict(), fidelity.lines())


def _report(folder: RunFolder, key: str, found: dict[str, Any], lines: Sequence[str]) -> None:
    known = read_genotype(folder.genotype_file)
    replace(known, search={**known.search, key: found}).save(folder.genotype_file)
    for line in lines:
        console.print(f"search: {line}", highlight=False)


def opened(path: Path, space: Callable[[str], Space], device: Device = "auto") -> tuple[Search, RunFolder]:
    """A search as its newest checkpoint left it, to be looked at: nothing is written.

    Args:
        space: finds the space by the name that the run has.

    Raises:
        UserError: no search there, none of its epochs done, or the data have changed since.
    """
    folder = RunFolder.open(path)
    if folder.verb() != "search":
        raise UserError(f"{path}: expected a search, this is a {folder.verb()}")
    if not Path(folder.genotype_file).is_file():
        raise UserError(f"{path}: none of the epochs of this search is done")
    config = replace(from_plain(SearchConfig, folder.config(), str(folder.config_file)), device=device, weights=None)
    state = Search(_of_folder(config, folder), space(config.space))
    if folder.json("data.json").get("sha256") != state.task.fingerprint["sha256"]:
        raise UserError(f"{path}: the data set has changed since this search (data.json)")
    state.restore(folder.load())
    return state, folder


def search(config: SearchConfig, space: Space) -> RunFolder:
    """Run a search in a new folder. Under `torchrun` all processes call this, and the first one writes."""
    config = replace(config, device=distributed.start(config.device))
    state, folder = Search(config, space), RunFolder(config.out)
    with folder.locked():
        if distributed.rank() == 0:
            table = config.budget.latency_table
            copies = {} if table is None else {LATENCY: read_json(Path(table))}
            RunFolder.create(config.out, "search", config, state.task.fingerprint, copies)
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
    config = _of_folder(config, folder)
    if checkpoints(folder.path / "checkpoints"):
        config = replace(config, weights=None)  # the checkpoint has them; their file may be gone
    state = Search(config, space)
    with folder.locked():
        folder.continue_with(state, state.task.fingerprint, wanted)
        return _finish(state, folder)


def _of_folder(config: SearchConfig, folder: RunFolder) -> SearchConfig:
    """Settings of a run, read from anywhere: paths as its own folder has them."""
    config = with_paths(config, folder.bases)
    if config.budget.latency_table is None:
        return config
    copied = str(folder.path / LATENCY)  # the file it came from may have changed since
    return replace(config, budget=replace(config.budget, latency_table=copied))


def _finish(state: Search, folder: RunFolder) -> RunFolder:
    say = console.print if distributed.rank() == 0 else void
    processes = f", {distributed.world()} processes" if distributed.world() > 1 else ""
    decided = f"{len(state.relaxation.decisions)} decisions"
    say(f"search: space {state.space.name}, {decided}, {state.task.said()}{processes}")
    if state.beginning.latest >= state.config.optim.epochs:
        epochs, arch, share = state.config.optim.epochs, state.config.arch, state.config.arch.weights_only
        said = f"optim.epochs {epochs}, arch.weights_only {'none' if share is None else share}"
        judges = [*(["the prior"] if arch.prior else []), *(["held-out verdicts"] if arch.by_options else [])]
        meant = f"is for {' and '.join(judges)} alone to say" if judges else "means nothing"
        say(f"search: warning: no epoch trains the logits ({said}): which network is derived {meant}")
    state.run(folder)
    file = Path(folder.genotype_file)
    say(f"search: wrote {file}  (show it: dnas show {file})")
    return folder
