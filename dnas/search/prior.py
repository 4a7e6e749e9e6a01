"""What is believed of the options before anything is trained: main effects of a zero-cost score (`arch.prior`).

Random networks are scored, and the scores explained as a sum over the options that a network has
(`dnas.search.effects`). A network is then believed to be as likely as exp(weight * its explained score), which is what
logits say that are weight times the effects. The logits start there; what they learn moves them on. Until they
learn the weights are trained evenly all the same (in mode `full`, which mixes by the logits, they are not).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from dnas.errors import UserError
from dnas.run import seeds
from dnas.search.budget import Budget
from dnas.search.config import LEAST_EXPLAINED
from dnas.search.effects import Effects, main_effects
from dnas.search.random_networks import TooRareError, random_networks
from dnas.search.zero_cost import naswot
from dnas.space.spec import Choices, Decision, Space, decisions, fill
from dnas.task.task import Task

NETWORKS = 200
"""Random networks that are scored."""
AMONG = 400
"""Where there is a budget they are the dearest of so many within it: what is believed is not the cost once more."""


class NoPriorError(UserError):
    """No score without training tells the networks of this space and budget apart."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"arch.prior: naswot says nothing here: {reason}")
        self.reason = reason


def drawn(known: Mapping[str, Decision], budget: Budget, seed: int) -> list[Choices]:
    """The random networks that are scored.

    Raises:
        NoPriorError: there are hardly any.
    """
    limit = budget.config.limit
    if limit is None:
        every = random_networks(known, NETWORKS, seed, different=False)
    else:
        try:
            every = random_networks(known, AMONG, seed, budget.count, (0, limit), different=False)
        except TooRareError as error:
            raise NoPriorError(str(error)) from None
        index = [{key: known[key].index(option) for key, option in one.items()} for one in every]
        every = [every[n] for n in sorted(range(AMONG), key=lambda n: -budget.count.at(index[n]))]
    found = list({tuple(one.values()): one for one in every}.values())[:NETWORKS]
    if len(found) < LEAST_EXPLAINED:
        where = "of the space" if limit is None else f"within budget.{budget.config.kind}"
        raise NoPriorError(
            f"{len(found)} of {len(every):,} random networks {where} are different, it takes {LEAST_EXPLAINED}"
        )
    return found


def believed(space: Space, task: Task, budget: Budget, seed: int) -> Effects:
    """Score random networks of a space on a training batch, and explain the scores.

    Raises:
        NoPriorError: there are hardly any networks, or the score tells nothing about them.
    """
    known = decisions(space.spec)
    networks = drawn(known, budget, seeds.derive(seed, "prior"))
    images = next(task.batches("weights", 0))[0]
    scores = []
    for n, choices in enumerate(networks):
        torch.manual_seed(seeds.derive(seed, "prior", n))
        net = task.network(fill(space.spec, choices), space.input, task.classes)
        net.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        scores.append(naswot(net.train(), images))
    if np.isnan(scores).any():
        raise NoPriorError("it needs activations (ReLU and the like), and some networks have none")
    if len(set(scores)) == 1:
        raise NoPriorError("all random networks score the same")
    return main_effects(known, networks, scores)
