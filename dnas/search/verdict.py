"""What an epoch of a search says: the derived network, how good it is on what is held out, and the search's health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dnas.nn.network import Network
from dnas.run import distributed, seeds
from dnas.run.files import void
from dnas.run.progress import console
from dnas.search.alone import short_training
from dnas.search.budget import Budget
from dnas.search.children import Children
from dnas.search.config import SearchConfig
from dnas.search.effects import main_effects
from dnas.search.equal import rivals
from dnas.search.estimators.estimator import Estimator
from dnas.search.health import Health, Moves, examine, undecided_of
from dnas.search.prior import believed
from dnas.search.random_networks import cost_window, random_networks
from dnas.search.relaxation import Relaxation, entropies
from dnas.space.genotype import Genotype
from dnas.space.spec import Choices, Space, fill, in_use
from dnas.task.task import Task

TRIES = 10
"""Draws for every sample that is wanted: settled logits draw the same networks again and again."""


class Verdict:
    """Derives networks and judges them; `choices` are those of the last epoch."""

    def __init__(
        self, config: SearchConfig, space: Space, relaxation: Relaxation, budget: Budget, estimator: Estimator
    ) -> None:
        self.config, self.space, self.budget = config, space, budget
        self.relaxation, self.estimator = relaxation, estimator
        self.leaves = tuple(space.spec.leaves(space.input))
        self.moves = Moves(relaxation.decisions).to(relaxation.logits_HK.device)
        self.choices: Choices = budget.derive(relaxation)  # refuses an impossible budget before anything is read
        self.even: list[Choices] = []
        if config.arch.samples_from == "uniform":  # refused where they are too rare, as early
            own, costs = seeds.derive(config.seed, "even"), cost_window(budget.config.limit)
            self.even = random_networks(relaxation.decisions, config.arch.samples, own, budget.count, costs)

    def judge(self, metrics: dict[str, Any], task: Task, supernet: Network, children: Children, last: bool) -> Health:
        """Derive the network of this epoch and, if it is time, look at it on what is held out; adds to the metrics."""
        config, epoch = self.config, metrics["epoch"]
        self.choices = self.budget.derive(self.relaxation)
        if last and config.arch.samples:
            explained = config.arch.samples_from == "uniform"
            metrics["sampled"] = (self._explained if explained else self._best_of_samples)(task, children)
        if last or (config.eval_every and (epoch + 1) % config.eval_every == 0):
            metrics |= task.look(children.recalibrated(self.choices))
            metrics["held_out_supernet"] = self.of_supernet(task, supernet)
        equal: list[str] = []
        if last:
            found = rivals(
                undecided_of(self.relaxation.probabilities()), self.relaxation.decisions,
                self.relaxation.probabilities(), self.choices, children, task,
            )  # fmt: skip
            metrics["rivals"] = {key: one.plain() for key, one in found.items()}
            equal = [key for key, one in found.items() if one.equal]
        health = self._health(metrics, last, equal)
        metrics["health"] = health.plain()
        return health

    def of_supernet(self, task: Task, supernet: Network) -> dict[str, float]:
        """The supernet as it is: by its probabilities where all options run, else the derived network in it."""
        if self.estimator.one_hot:
            self.relaxation.fix(self.choices)
        else:
            self.relaxation.mix()
        return task.evaluate(supernet)

    def _best_of_samples(self, task: Task, children: Children) -> list[dict[str, Any]]:
        """Sample networks within the budget, and take the best on what is held out."""
        found, scores = [self.choices], self._scores([self.choices], task, children)
        generator, wanted = seeds.generator(self.config.seed, "derive"), self.config.arch.samples
        at_once = distributed.world() if self.config.arch.samples_from == "neighbours" else wanted
        while len(found) <= wanted:
            count = min(at_once, wanted + 1 - len(found))
            new = self.samples(found, count, generator)
            found, scores = found + new, scores + self._scores(new, task, children)
            self.choices = found[scores.index(max(scores))]
            if len(new) < count:
                break
        return [{"choices": child, task.metric: score} for child, score in zip(found, scores, strict=True)]

    def _explained(self, task: Task, children: Children) -> list[dict[str, Any]]:
        """Take the network whose options add most to the verdicts on random ones, and to the prior's score."""
        networks, known = self.even, self.relaxation.decisions
        scores = self._scores(networks, task, children)
        effects = main_effects(known, networks, scores)
        say = console.print if distributed.rank() == 0 else void
        of = f"{task.metric} of {len(networks)} random networks"
        if effects.explained > 0:
            say(f"search: options explain {effects.explained:.0%} of the held-out {of}, where these were left out")
            total = dict(effects.of)
            if self.config.arch.prior is not None:
                with distributed.apart():
                    before = believed(self.space, task, self.budget, self.config.seed).of
                total = {key: [a + b for a, b in zip(own, before[key], strict=True)] for key, own in total.items()}
            self.choices = self.budget.derive(self.relaxation, total)
        else:
            say(f"search: warning: options explain nothing of the held-out {of}: the logits derive the network")
        return [{"choices": one, task.metric: score} for one, score in zip(networks, scores, strict=True)]

    def _scores(self, networks: Sequence[Choices], task: Task, children: Children) -> list[float]:
        """Of networks on what is held out, every rank its part of them."""
        ranks = range(distributed.rank(), len(networks), distributed.world())
        own = [self._score(child, task, children) if n in ranks else 0.0 for n, child in enumerate(networks)]
        return distributed.sum_numbers(own)

    def samples(self, found: Sequence[Choices], wanted: int, generator: torch.Generator) -> list[Choices]:
        """Networks within the budget that are not among those `found`; fewer where hardly any are left.

        As likely as the logits say, or neighbours of the current one.
        """
        draw: Callable[[torch.Generator], Choices | None]
        draw = self._neighbour if self.config.arch.samples_from == "neighbours" else self._drawn
        new: list[Choices] = []
        for _ in range(TRIES * wanted):
            if len(new) == wanted:
                break
            child = draw(generator)
            if child is not None and child not in (*found, *new):
                new.append(child)
        return new

    def _drawn(self, generator: torch.Generator) -> Choices:
        return self.budget.derive(self.relaxation, self.relaxation.perturbed(generator))

    def _neighbour(self, generator: torch.Generator) -> Choices | None:
        """The current network with another option in one choice that it uses; none where that costs too much, or all
        of them have one option.
        """
        known = self.relaxation.decisions
        index = {key: one.index(self.choices[key]) for key, one in known.items()}
        used = in_use(self.leaves, index)
        places = [(key, k) for key in known if key in used for k in range(len(known[key].options)) if k != index[key]]
        if not places:
            return None
        key, k = places[int(torch.randint(len(places), (), generator=generator))]
        limit = self.budget.config.limit
        if limit is not None and self.budget.count.at({**index, key: k}) > limit:
            return None
        return {**self.choices, key: known[key].options[k]}

    def _score(self, choices: Choices, task: Task, children: Children) -> float:
        epochs = self.config.arch.samples_epochs
        if not epochs:
            return children.score(choices, task)
        score = short_training(self.config, task, fill(self.space.spec, choices), self.space.input, epochs)
        console.print(f"search: a sample, trained on its own: {task.metric} {score:.1%}")
        return score

    def architecture(self) -> dict[str, Any]:
        """Where the choices stand, for the log."""
        probabilities = self.relaxation.probabilities()
        return {
            "probabilities": {key: p.tolist() for key, p in probabilities.items()},
            "entropy": entropies(probabilities),
            "moves": self.moves.follow(self.relaxation.logits()),
            **self.budget.expected(self.relaxation),
            "budget": self.config.budget.kind,
            "target": self.config.budget.limit,
        }

    def _health(self, metrics: dict[str, Any], last: bool, equal: Sequence[str]) -> Health:
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
            equal,
        )

    def genotype(self, metrics: dict[str, Any], task: Task) -> Genotype:
        """The derived network as a file, with how it was found."""
        config = self.config
        summary = {
            "seed": config.seed, "epochs": metrics["epoch"] + 1, "of_epochs": config.optim.epochs,
            "data": {key: task.fingerprint[key] for key in ("name", "sha256", "protocol") if key in task.fingerprint},
            "task": config.task, "metric": task.metric,
            "holdout": task.holdout,
            "budget": {config.budget.kind: config.budget.limit}, "logits": self.relaxation.logits(),
            "entropy": metrics["entropy"], "moves": metrics["moves"], "health": metrics["health"],
            "held_out": metrics.get("held_out"), "held_out_supernet": metrics.get("held_out_supernet"),
            "rivals": metrics.get("rivals"),
            **self.budget.expected(self.relaxation),
        }  # fmt: skip
        return Genotype.of(self.space, self.choices, summary)
