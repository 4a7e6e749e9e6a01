"""The health of a search: are choices made, do they move, is the network more than skips, is its cost as expected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dnas.search.relaxation import entropies
from dnas.space.holes import Shape
from dnas.space.spec import Choices, Decision, Spec

UNDECIDED = 0.9
"""Entropy, as a share of the uniform choice's, above which a choice was not made."""
WARM = 2.0
"""A final temperature above this leaves the draws close to uniform whatever the logits say."""
FEW = 5
"""With fewer choices that could be skip or zero, all of them skipping is no collapse."""
APART = 1.5
"""Expected and derived cost further apart than this factor: the logits have not settled."""


class Moves(nn.Module):
    """How often the argmax of each decision has moved, epoch by epoch. Part of the checkpoint."""

    def __init__(self, decisions: Mapping[str, Decision]) -> None:
        super().__init__()
        self.keys = tuple(decisions)
        self.register_buffer("leader_H", torch.full((len(self.keys),), -1))
        self.register_buffer("moves_H", torch.zeros(len(self.keys), dtype=torch.long))
        self.leader_H: Tensor
        self.moves_H: Tensor

    def follow(self, logits: Mapping[str, Sequence[float]]) -> dict[str, int]:
        """Count the decisions whose largest logit is another than in the epoch before; moves so far by key."""
        leader_H = torch.tensor([max(range(len(logits[key])), key=logits[key].__getitem__) for key in self.keys])
        leader_H = leader_H.to(self.leader_H.device)
        self.moves_H += (self.leader_H >= 0) & (leader_H != self.leader_H)
        self.leader_H.copy_(leader_H)
        return dict(zip(self.keys, self.moves_H.tolist(), strict=True))


@dataclass(frozen=True)
class Health:
    """What a search's state says about itself.

    Args:
        idle: decisions of the derived network that took skip or zero.
        idle_of: decisions that are part of the derived network and could have.
        idle_chance: how many of them uniform choices would take skip or zero, on average.
        undecided: decisions with an entropy close to the uniform choice's.
        moved: decisions whose argmax moved at least once.
        cost_ratio: expected over derived cost.
        warnings: lines for people; none: nothing to worry about.
    """

    idle: int
    idle_of: int
    idle_chance: float
    undecided: list[str]
    moved: int
    cost_ratio: float
    warnings: list[str]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def idle_share(spec: Spec, x: Shape, decisions: Mapping[str, Decision], choices: Choices) -> tuple[int, int, float]:
    """Decisions in use that took skip or zero, those that could have, and how many uniform choices would take."""
    index = {key: decision.index(choices[key]) for key, decision in decisions.items()}
    used = {
        condition.key
        for leaf in spec.leaves(x)
        if all(index[condition.key] in condition.options for condition in leaf.conditions)
        for condition in leaf.conditions
    }
    could = [decisions[key] for key in used if decisions[key].idle]
    idle = sum(index[decision.key] in decision.idle for decision in could)
    return idle, len(could), sum(len(decision.idle) / len(decision.options) for decision in could)


def examine(
    spec: Spec,
    x: Shape,
    decisions: Mapping[str, Decision],
    choices: Choices,
    probabilities: Mapping[str, Tensor],
    moves: Mapping[str, int],
    costs: tuple[float, float],
    temperatures: tuple[float, float],
    last: bool,
) -> Health:
    """Look at the state of a search.

    Args:
        moves: how often the argmax of each decision has moved.
        costs: expected and derived cost.
        temperatures: tau now, and at the start.
        last: whether the search ends here; before that only a collapse is worth a warning.
    """
    idle, could, chance = idle_share(spec, x, decisions, choices)
    undecided = [key for key, entropy in entropies(probabilities).items() if entropy > UNDECIDED]
    moved, ratio = sum(count > 0 for count in moves.values()), costs[0] / max(costs[1], 1.0)
    warnings = []
    # more than half, and two standard deviations above chance; few choices say nothing
    if could >= FEW and idle > could / 2 and idle > chance + 2 * math.sqrt(max(chance * (1 - chance / could), 1e-9)):
        warnings.append(
            f"collapse: {idle} of {could} choices took skip or zero ({chance:.1f} by chance); try arch.idle_dropout 0.5"
        )
    if last:
        if len(undecided) >= len(decisions) / 2:
            still = sum(moves[key] == 0 for key in undecided)
            warnings.append(
                f"undecided: {len(undecided)} of {len(decisions)} choices are close to uniform, {still} of them"
                " never moved; search longer or raise arch.lr"
            )
        if temperatures[0] > WARM or (temperatures[0] == temperatures[1] and temperatures[0] > 1):
            warnings.append(
                f"temperature: {temperatures[0]:.2f} at the end (from {temperatures[1]:.2f}):"
                " draws stayed close to uniform; lower arch.temperature_end"
            )
        if abs(math.log(max(ratio, 1e-9))) > math.log(APART):
            warnings.append(
                f"cost: expected {costs[0]:,.0f}, derived {costs[1]:,.0f}: the choices have not settled on a network"
            )
    return Health(idle, could, chance, undecided, moved, ratio, warnings)
