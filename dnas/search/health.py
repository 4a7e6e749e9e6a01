"""The health of a search: are choices made, do they move, is the network more than skips, is its cost as expected."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dnas.search.relaxation import entropies
from dnas.space.holes import Shape
from dnas.space.spec import Choices, Decision, Spec, in_use

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
        idle: decisions of the derived network that took skip or zero, or that zeros have cut off.
        idle_of: decisions that are part of the derived network, or would be but for zeros, and could have.
        idle_chance: how many of them uniform choices would take skip or zero, on average.
        idle_likely: how many of them draws take skip or zero, on average.
        undecided: decisions with an entropy close to the uniform choice's, but for `equal` ones.
        equal: undecided decisions whose likeliest options held-out data cannot tell apart.
        moved: decisions whose argmax moved at least once.
        cost_ratio: expected over derived cost.
        warnings: lines for people; none: nothing to worry about.
    """

    idle: int
    idle_of: int
    idle_chance: float
    idle_likely: float
    undecided: list[str]
    equal: list[str]
    moved: int
    cost_ratio: float
    warnings: list[str]

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Idle:
    """Of the decisions in use that could take skip or zero: how many did, would by chance, and do in draws."""

    took: int
    could: int
    chance: float
    likely: float

    @property
    def collapsed(self) -> bool:
        """Whether draws take skip or zero in more than half, and in more than chance explains.

        By probabilities: equal logits take nothing, whichever option comes first.
        """
        spread = math.sqrt(max(self.chance * (1 - self.chance / max(self.could, 1)), 1e-9))
        return self.could >= FEW and self.likely > max(self.could / 2, self.chance + 2 * spread)


def _awake(decision: Decision) -> int:
    """The first option that is neither skip nor zero; of a decision between these, the first."""
    return next((k for k in range(len(decision.options)) if k not in decision.idle), 0)


def idle(
    spec: Spec, x: Shape, decisions: Mapping[str, Decision], choices: Choices, probabilities: Mapping[str, Tensor]
) -> Idle:
    """How much of a network is skip and zero.

    What zeros have cut off (and what is inside an operation that a skip stands for) counts as zero, as likely as the
    least likely of those that the network took; decisions that would be no part of it anyway do not count.
    """
    leaves = tuple(spec.leaves(x))
    index = {key: decision.index(choices[key]) for key, decision in decisions.items()}
    took = {key for key, decision in decisions.items() if index[key] in decision.idle}
    awake = {key: _awake(decisions[key]) for key in took}
    used = in_use(leaves, index)
    could = {key: decisions[key] for key in in_use(leaves, {**index, **awake}) | used if decisions[key].idle}
    likely = {key: float(probabilities[key][list(own.idle)].sum()) for key, own in could.items() if key in used}
    cut = len(could) - len(likely)
    least = min((likely[key] for key in took & likely.keys()), default=0.0)
    return Idle(
        len(took & likely.keys()) + cut,
        len(could),
        sum(len(own.idle) / len(own.options) for own in could.values()),
        sum(likely.values()) + cut * least,
    )


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
    equal: Collection[str] = (),
    by_options: bool = False,
) -> Health:
    """Look at the state of a search.

    Args:
        probabilities: of the options, by what derived the network.
        moves: how often the argmax of each decision has moved.
        costs: expected and derived cost.
        temperatures: tau now, and at the start.
        last: whether the search ends here; before that only a collapse is worth a warning.
        equal: decisions whose likeliest options held-out data cannot tell apart.
        by_options: whether what options add to held-out verdicts derived it, in place of the logits. They say what is
            good, and the budget alone what it may cost.
    """
    idleness = idle(spec, x, decisions, choices, probabilities)
    open_still = undecided_of(probabilities)
    undecided = [key for key in open_still if key not in equal]
    moved, ratio = sum(count > 0 for count in moves.values()), costs[0] / max(costs[1], 1.0)
    warnings = []
    if idleness.collapsed:
        warnings.append(
            f"collapse: {idleness.likely:.1f} of {idleness.could} choices take skip or zero in a draw, or are cut off"
            f" ({idleness.chance:.1f} by chance); let the logits begin later (arch.weights_only) or raise"
            " arch.idle_dropout"
        )
    if last:
        if len(undecided) >= len(decisions) / 2:
            still = sum(moves[key] == 0 for key in undecided)
            why = f", {still} of them never moved; search longer or raise arch.lr"
            if by_options:
                why = " by what their options add to held-out verdicts; hold out more (holdout) or raise arch.samples"
            warnings.append(f"undecided: {len(undecided)} of {len(decisions)} choices are close to uniform{why}")
        if temperatures[0] > WARM or (temperatures[0] == temperatures[1] and temperatures[0] > 1):
            warnings.append(
                f"temperature: {temperatures[0]:.2f} at the end (from {temperatures[1]:.2f}):"
                " draws stayed close to uniform; lower arch.temperature_end"
            )
        if not by_options and abs(math.log(max(ratio, 1e-9))) > math.log(APART):  # options know of no budget
            warnings.append(
                f"cost: expected {costs[0]:,.0f}, derived {costs[1]:,.0f}: the choices have not settled on a network"
            )
    return Health(
        idleness.took, idleness.could, idleness.chance, idleness.likely, undecided,
        [key for key in open_still if key in equal], moved, ratio, warnings,
    )  # fmt: skip


def undecided_of(probabilities: Mapping[str, Tensor]) -> list[str]:
    """Decisions with an entropy close to the uniform choice's."""
    return [key for key, entropy in entropies(probabilities).items() if entropy > UNDECIDED]
