"""What an epoch of a search says: the derived network, how good it is on what is held out, and the search's health."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dnas.nn.network import Network
from dnas.run import distributed, seeds
from dnas.run.files import void
from dnas.run.progress import console
from dnas.search.alone import short_training
from dnas.search.budget import Budget
from dnas.search.children import Children
from dnas.search.config import LEAST_EXPLAINED, SearchConfig
from dnas.search.effects import Effects, main_effects
from dnas.search.equal import rivals
from dnas.search.estimators.estimator import Estimator
from dnas.search.health import Health, Moves, examine, undecided_of
from dnas.search.random_networks import cost_window, random_networks
from dnas.search.relaxation import Relaxation, entropies
from dnas.space.genotype import Genotype
from dnas.space.spec import Choices, Space, fill, in_use
from dnas.task.task import Task

WEIGHT = 3.0
"""Of what options add to the verdicts, where `arch.prior_weight` is that of what they add to the prior's score."""
FEW = 5
"""Batches from which each of many networks takes its batch norm statistics: their order by more is the same (0.99)."""
TRIES = 10
"""Draws for every sample that is wanted: settled logits draw the same networks again and again."""


class Verdict:
    """Derives networks and judges them.

    Attributes:
        choices: of the network that was derived last.
        pause: called after each of many verdicts.
        prior: what options add to the score of `arch.prior`, where there is one.
        believed: of the options of every decision, probabilities: those of the logits, or of what derived the network
            in their place.
    """

    def __init__(
        self, config: SearchConfig, space: Space, relaxation: Relaxation, budget: Budget, estimator: Estimator
    ) -> None:
        self.config, self.space, self.budget = config, space, budget
        self.relaxation, self.estimator = relaxation, estimator
        self.leaves = tuple(space.spec.leaves(space.input))
        self.moves = Moves(relaxation.decisions).to(relaxation.logits_HK.device)
        self.choices: Choices = budget.derive(relaxation)  # refuses an impossible budget before anything is read
        self.pause: Callable[[], None] = lambda: None
        self.prior: Effects | None = None
        self.believed: dict[str, Tensor] = {}

    def judge(self, metrics: dict[str, Any], task: Task, supernet: Network, children: Children, last: bool) -> Health:
        """Derive the network of this epoch and, if it is time, look at it on what is held out; adds to the metrics."""
        config, epoch = self.config, metrics["epoch"]
        self.choices, self.believed = self.budget.derive(self.relaxation), self.relaxation.probabilities()
        if last and config.arch.by_options:
            metrics |= self._by_options(task, children)
        elif last and config.arch.samples:
            metrics["sampled"] = self._best_of_samples(task, children)
        if last or (config.eval_every and (epoch + 1) % config.eval_every == 0):
            metrics |= task.look(children.recalibrated(self.choices))
            metrics["held_out_supernet"] = self.of_supernet(task, supernet)
        equal: list[str] = []
        if last:
            known, undecided = self.relaxation.decisions, undecided_of(self.believed)
            found = rivals(undecided, known, self.believed, self.choices, children, task)
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

    def even(self) -> list[Choices]:
        """Random networks of 93 to 100 % of the budget, or where those are rare anywhere within it.

        As many as there are, where there are fewer than `samples`.
        """
        limit, wanted, own = self.budget.config.limit, self.config.arch.samples, seeds.derive(self.config.seed, "even")
        found: list[Choices] = []
        for window in (cost_window(limit), (0.0, math.inf if limit is None else limit)):
            if len(found) < LEAST_EXPLAINED:
                known, count = self.relaxation.decisions, self.budget.count
                found = random_networks(known, wanted, own, count, window, fewest=0)
        return found

    def _by_options(self, task: Task, children: Children) -> dict[str, Any]:
        """Take the network whose options add most to the verdicts on random ones, and to the prior's score.

        Returns:
            For the metrics: the verdicts, and what the options add, if that derives the network.
        """
        networks, known, arch = self.even(), self.relaxation.decisions, self.config.arch
        say = console.print if distributed.rank() == 0 else void
        if len(networks) < LEAST_EXPLAINED:
            within = "" if self.budget.config.limit is None else " within the budget"
            fewer = f"found {len(networks)} networks{within}, it takes {LEAST_EXPLAINED} to tell what options add"
            say(f"search: {fewer}: the logits derive the network")
            return {}
        scores = self._scores(networks, task, children)
        found: dict[str, Any] = {
            "sampled": [{"choices": one, task.metric: score} for one, score in zip(networks, scores, strict=True)]
        }
        effects, of = main_effects(known, networks, scores), f"{task.metric} of {len(networks)} random networks"
        if effects.explained <= 0:
            say(f"search: warning: options explain nothing of the held-out {of}: the logits derive the network")
            return found
        say(f"search: options explain {effects.explained:.0%} of the held-out {of}, where these were left out")
        logits = effects.logits(WEIGHT)
        if self.prior is not None:
            before = self.prior.logits(arch.prior_weight)
            logits = {key: [a + b for a, b in zip(own, before[key], strict=True)] for key, own in logits.items()}
        self.choices = self.budget.derive(self.relaxation, logits)
        self.believed = {key: torch.tensor(own).softmax(0) for key, own in logits.items()}
        return {**found, "options": {"explained": effects.explained, "logits": logits}}

    def _scores(self, networks: Sequence[Choices], task: Task, children: Children) -> list[float]:
        """Of networks on what is held out, every rank its part of them; all ranks pause together."""
        own = [0.0] * len(networks)
        for first in range(0, len(networks), distributed.world()):
            n = first + distributed.rank()
            if n < len(networks):
                own[n] = self._score(networks[n], task, children)
            self.pause()
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
            return children.score(choices, task, FEW)
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
            self.believed,
            metrics["moves"],
            (expected, float(self.budget.count.at(index))),
            (metrics["temperature"] if self.estimator.tempered else 0.0, arch.temperature),
            last,
            equal,
            "options" in metrics,
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
            "options": metrics.get("options"), "entropy": entropies(self.believed),
            "moves": metrics["moves"], "health": metrics["health"],
            "held_out": metrics.get("held_out"), "held_out_supernet": metrics.get("held_out_supernet"),
            "rivals": metrics.get("rivals"),
            **self.budget.expected(self.relaxation),
        }  # fmt: skip
        return Genotype.of(self.space, self.choices, summary)
