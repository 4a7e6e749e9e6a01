"""How far a search's verdict can be trusted: against short trainings of the same networks, each on its own.

Random networks (of the found one's cost, where there is a budget) get two verdicts on what is held out: with the
weights of the supernet, and trained shortly from scratch. Their rank correlation is the fidelity of the supernet.
Trained in the same way, the found network stands among them or not: that is its verification.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from dnas.errors import UserError
from dnas.eval.correlation import Correlation, spearman
from dnas.run import distributed
from dnas.run.files import read_json, write_json
from dnas.search.alone import short_training
from dnas.search.budget import Budget
from dnas.search.children import Children
from dnas.search.config import LEAST, SearchConfig
from dnas.search.random_networks import cost_window, random_networks
from dnas.space.spec import Choices, Space, decisions, fill
from dnas.task.task import Task

FIDELITY = "fidelity.json"


@dataclass(frozen=True)
class FidelityConfig:
    """Hold a search's verdict against short trainings of networks on their own.

    Args:
        networks: random networks.
        epochs: of a training on its own.
        seeds: trainings of every network.
    """

    networks: int = 20
    epochs: int = 5
    seeds: int = 1

    def __post_init__(self) -> None:
        for name, least in (("networks", LEAST), ("epochs", 1), ("seeds", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}: found {getattr(self, name)}, allowed: {least} or more")


@dataclass(frozen=True)
class Judged:
    """A network with its verdicts, shares (0 to 1).

    Args:
        cost: what the budget counts.
        inherited: with the weights of the supernet.
        alone: trained on its own, a seed each.
    """

    choices: dict[str, Any]
    cost: int
    inherited: float
    alone: list[float]


@dataclass(frozen=True)
class Fidelity:
    """What came out.

    Args:
        metric: what the verdicts are.
        found: the network that the search found.
        others: the random ones.
        peers: which random ones they are, in words (`Judge.peers`).
    """

    config: FidelityConfig
    metric: str
    found: Judged
    others: list[Judged]
    peers: str

    @property
    def correlation(self) -> Correlation:
        """Of the supernet's verdict with that of the trainings, over the random networks."""
        return spearman([one.inherited for one in self.others], [mean(one.alone) for one in self.others])

    @property
    def gain(self) -> tuple[float, float, float]:
        """What the found network has above the mean random one, with a 95 % interval: networks and seeds resampled."""
        rng, alone = np.random.default_rng(0), np.array([one.alone for one in self.others])
        found, rounds = np.array(self.found.alone), 4000
        others_R = alone.mean(1)[rng.integers(0, len(alone), (rounds, len(alone)))].mean(1)
        found_R = found[rng.integers(0, len(found), (rounds, len(found)))].mean(1)
        # one training of the found network has the noise of a training, which shows between networks at most
        spread = alone.std(1, ddof=1).mean() if alone.shape[1] > 1 else alone.mean(1).std(ddof=1)
        found_R = found_R + rng.normal(0, spread / len(found) ** 0.5, rounds) * (len(found) == 1)
        low, high = np.quantile(found_R - others_R, [0.025, 0.975])
        return float(found.mean() - alone.mean()), float(low), float(high)

    @property
    def below(self) -> float:
        """The share of the random networks that are worse than the found one."""
        return mean(mean(one.alone) < mean(self.found.alone) for one in self.others)

    def verdict(self) -> dict[str, Any]:
        """As JSON values, without the networks."""
        gain = dict(zip(("mean", "low", "high"), self.gain, strict=True))
        own = {"metric": self.metric, "below": self.below, **asdict(self.config)}
        return {"correlation": self.correlation.plain(), "gain": gain, **own}

    def lines(self) -> list[str]:
        """The verdict in words."""
        gain, low, high = (100 * number for number in self.gain)
        sure = "better" if low > 0 else "worse" if high < 0 else "not to be told apart"
        count, config = len(self.others), self.config
        return [
            f"supernet and {config.epochs}-epoch trainings agree on {count} random networks by {self.correlation}"
            " (Spearman)",
            f"the found network is {sure}: {self.metric} {gain:+.1f} [{low:+.1f}, {high:+.1f}] above the mean of"
            f" {self.peers}, above {self.below:.0%} of them",
        ]


@dataclass(frozen=True)
class Judge:
    """What gives networks their verdicts.

    Args:
        config: of the search: its networks are trained on their own as the supernet was.
        children: of the supernet.
        epoch: that the supernet has been trained to.
    """

    config: SearchConfig
    space: Space
    budget: Budget
    task: Task
    children: Children
    epoch: int

    def __call__(self, choices: Choices, asked: FidelityConfig) -> Judged:
        spec, x = fill(self.space.spec, choices), self.space.input
        alone = [short_training(self.config, self.task, spec, x, asked.epochs, n) for n in range(asked.seeds)]
        return Judged(dict(choices), self.cost(choices), self.children.score(choices, self.task), alone)

    @property
    def known_by(self) -> str:
        """A hash of what both verdicts depend on beside the networks: other ones are not gone on with."""
        config = self.config
        of = [self.epoch, *(asdict(part) for part in (config.optim, config.loss, config.train, config.input))]
        return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]

    @property
    def peers(self) -> str:
        """What a found network is held against."""
        return "random ones of any cost" if self.budget.config.limit is None else "random ones of its cost"

    def cost(self, choices: Choices) -> int:
        """What the budget counts."""
        known = decisions(self.space.spec)
        return self.budget.count.at({key: decision.index(choices[key]) for key, decision in known.items()})


def draw_peers(judge: Judge, found: Choices, number: int) -> list[Choices]:
    """Random networks of the found one's cost; of any cost where there is no budget.

    Raises:
        TooRareError: they are too rare.
    """
    costs = cost_window(None if judge.budget.config.limit is None else judge.cost(found))
    return random_networks(decisions(judge.space.spec), number, judge.config.seed, judge.budget.count, costs)


def measure(judge: Judge, found: Choices, config: FidelityConfig, file: Path, say: Callable[[str], None]) -> Fidelity:
    """Judge the found network and random ones. Goes on with what `file` has of the same question.

    Raises:
        TooRareError: networks of the found one's cost are too rare.
    """
    drawn = draw_peers(judge, found, config.networks)
    question = {"config": asdict(config), "found": dict(found), "seed": judge.config.seed, "asked_of": judge.known_by}
    before = read_json(file) if file.is_file() else {}
    same = isinstance(before, dict) and before.get("question") == question
    judged = [Judged(**one) for one in before["judged"]] if same else []
    with distributed.apart():
        for number, choices in enumerate([found, *drawn]):
            if number < len(judged):
                continue
            judged.append(judge(choices, config))
            own = f"{judge.task.metric} inherited {judged[-1].inherited:.1%}, alone {mean(judged[-1].alone):.1%}"
            say(f"{f'random network {number}' if number else 'the found network'}: {own}")
            write_json(file, {"question": question, "judged": [asdict(one) for one in judged]})
    fidelity = Fidelity(config, judge.task.metric, judged[0], judged[1:], judge.peers)
    content = {"question": question, "judged": [asdict(one) for one in judged], "verdict": fidelity.verdict()}
    write_json(file, content)
    return fidelity
