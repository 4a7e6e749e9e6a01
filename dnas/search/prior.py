"""What is believed of the options before anything is trained: main effects of a zero-cost score (`arch.prior`).

Random networks are scored, the scores put in order and spread like a normal distribution, and explained as a sum over
the options that a network has. A network is then believed to be as likely as exp(weight * its explained score), which
is what logits say that are weight times the effects. The logits start there; what they learn moves them on. Until they
learn the weights are trained evenly all the same (in mode `full`, which mixes by the logits, they are not).

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
AMONG = 400
"""Where there is a budget they are the dearest of so many within it: what is believed is not the cost once more."""
LEAST = 20
"""Fewer different ones say nothing."""
RIDGES = tuple(10.0**k for k in np.arange(-1, 3.1, 0.5))


@dataclass(frozen=True)
class Effects:
    """What the options add to the score, in standard deviations of the networks' scores.

    Args:
        of: decision -> an effect of each option.
        explained: the share of the scores' variance that they explain of networks that were left out; not above zero:
            they explain nothing, and the effects are zero.
    """

    of: Mapping[str, list[float]]
    explained: float


def main_effects(known: Mapping[str, Decision], networks: Sequence[Choices], scores: Sequence[float]) -> Effects:
    """Explain scores as a sum over options: ridge regression, as strong as predicts best what is left out.

    Args:
        scores: of the networks; -inf is the worst there is.

    Raises:
        UserError: all scores are the same.
    """
    from scipy.stats import norm, rankdata  # slow to import

    z_N = norm.ppf((rankdata(scores) - 0.5) / len(scores))
    if z_N.std() == 0:
        raise UserError("arch.prior: found naswot, allowed where it tells networks apart: all here score the same")
    has = [np.eye(len(one.options))[[one.index(choices[key]) for choices in networks]] for key, one in known.items()]
    has_NP = np.concatenate(has, 1)
    effect_P, explained = _ridge(has_NP - has_NP.mean(0), (z_N - z_N.mean()) / z_N.std())
    if explained <= 0:
        effect_P = np.zeros_like(effect_P)
    parts = np.split(effect_P, np.cumsum([one.shape[1] for one in has])[:-1])
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
        UserError: there are hardly any.
    """
    limit = budget.config.limit
    if limit is None:
        every = random_networks(known, NETWORKS, seed, different=False)
    else:
        every = random_networks(known, AMONG, seed, budget.count, (0, limit), different=False)
        index = [{key: known[key].index(option) for key, option in one.items()} for one in every]
        every = [every[n] for n in sorted(range(AMONG), key=lambda n: -budget.count.at(index[n]))]
    found = list({tuple(one.values()): one for one in every}.values())[:NETWORKS]
    if len(found) < LEAST:
        where = "in the space" if limit is None else f"within budget.{budget.config.kind}"
        raise UserError(
            f"arch.prior: found naswot, allowed where {LEAST} of {len(every):,} random networks are different and"
            f" {where}, here {len(found)}"
        )
    return found


def believed(space: Space, task: Task, budget: Budget, seed: int) -> Effects:
    """Score random networks of a space on a training batch, and explain the scores.

    Raises:
        UserError: there are hardly any networks, or the score tells nothing about them.
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
        raise UserError("arch.prior: found naswot, allowed for networks with activations (ReLU and the like) alone")
    return main_effects(known, networks, scores)
