"""What is believed of the options before anything is trained: main effects of a zero-cost score (`arch.prior`).

Random networks are scored, the scores put in order and spread like a normal distribution, and explained as a sum over
the options that a network has. A network is then believed to be as likely as exp(weight * its explained score), which
is what logits say that are weight times the effects. The logits start there; what they learn moves them on.

Shapes: N networks, H decisions, K options (padded to the most), P options of all decisions together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dnas.errors import UserError
from dnas.run import seeds
from dnas.search.budget import Budget
from dnas.search.random_networks import random_networks
from dnas.search.zero_cost import naswot
from dnas.space.spec import Choices, Decision, Space, decisions, fill
from dnas.task.task import Task

NETWORKS = 200
"""Random networks that are scored."""
AMONG = 2000
"""Where there is a budget they are the dearest within it of so many: what is believed is not the cost once more."""
LEAST = 20
"""Fewer say nothing."""
RIDGES = tuple(10.0**k for k in np.arange(-1, 3.1, 0.5))


@dataclass(frozen=True)
class Effects:
    """What the options add to the score, in standard deviations of the networks' scores.

    Args:
        of: decision -> an effect of each option.
        explained: the share of the scores' variance that they explain of networks that were left out; below zero:
            they explain nothing.
    """

    of: Mapping[str, list[float]]
    explained: float


def main_effects(known: Mapping[str, Decision], networks: Sequence[Choices], scores: Sequence[float]) -> Effects:
    """Explain scores as a sum over options: ridge regression, as strong as predicts best what is left out.

    Args:
        scores: of the networks; -inf is the worst there is.
    """
    from scipy.stats import norm, rankdata  # slow to import

    z_N = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    sizes = [len(decision.options) for decision in known.values()]
    has_NP = np.zeros((len(networks), sum(sizes)))
    for n, choices in enumerate(networks):
        for first, (key, decision) in zip(np.cumsum([0, *sizes]), known.items(), strict=False):
            has_NP[n, first + decision.index(choices[key])] = 1.0
    effect_P, explained = _ridge(has_NP - has_NP.mean(0), (z_N - z_N.mean()) / z_N.std())
    parts = np.split(effect_P, np.cumsum(sizes)[:-1])
    return Effects({key: (part - part.mean()).tolist() for key, part in zip(known, parts, strict=True)}, explained)


def _ridge(x_NP: NDArray[np.float64], y_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Coefficients, and the share of the variance that is explained of each row by the others (closed form)."""
    u_NR, s_R, v_RP = np.linalg.svd(x_NP, full_matrices=False)
    found: list[tuple[float, NDArray[np.float64]]] = []
    for ridge in RIDGES:
        kept_R = s_R**2 / (s_R**2 + ridge)
        own_N = ((u_NR**2) * kept_R).sum(1) + 1 / len(y_N)  # the mean was taken from the row as well
        error_N = (y_N - u_NR @ (kept_R * (u_NR.T @ y_N))) / (1 - own_N)
        effect_P = v_RP.T @ (s_R / (s_R**2 + ridge) * (u_NR.T @ y_N))
        found.append((1 - float(np.mean(error_N**2)), effect_P))
    explained, effect_P = max(found, key=lambda one: one[0])
    return effect_P, explained


def drawn(known: Mapping[str, Decision], budget: Budget, seed: int) -> list[Choices]:
    """The random networks that are scored.

    Raises:
        UserError: hardly any is within the budget.
    """
    limit, count = budget.config.limit, NETWORKS if budget.config.limit is None else AMONG
    found = random_networks(known, count, seed, different=False)
    if limit is None:
        return found
    costs = [budget.count.at({key: known[key].index(option) for key, option in one.items()}) for one in found]
    dearest = sorted((n for n in range(count) if costs[n] <= limit), key=lambda n: -costs[n])[:NETWORKS]
    if len(dearest) < LEAST:
        kind, wanted = budget.config.kind, f"arch.prior: found naswot, allowed with {LEAST} or more of {count:,}"
        raise UserError(f"{wanted} random networks within budget.{kind}, here {len(dearest)}")
    return [found[n] for n in dearest]


def believed(space: Space, task: Task, budget: Budget, seed: int) -> Effects:
    """Score random networks of a space on a training batch, and explain the scores.

    Raises:
        UserError: hardly any network is within the budget, or they have no activations to look at.
    """
    known = decisions(space.spec)
    networks = drawn(known, budget, seeds.derive(seed, "prior"))
    images = next(task.batches("weights", 0))[0]
    scores = []
    for choices in networks:
        torch.manual_seed(seeds.derive(seed, "init"))
        net = task.network(fill(space.spec, choices), space.input, task.classes)
        net.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        scores.append(naswot(net.train(), images))
    if np.isnan(scores).any():
        raise UserError("arch.prior: found naswot, allowed for networks with activations (ReLU and the like) alone")
    return main_effects(known, networks, scores)
