"""Random networks of a space: what a found one is held against."""

from __future__ import annotations

import random
from collections.abc import Mapping

from dnas.errors import UserError
from dnas.space.cost import Count
from dnas.space.spec import Choices, Decision

TRIES = 20_000


def random_networks(
    decisions: Mapping[str, Decision],
    number: int,
    seed: int,
    cost: Count | None = None,
    window: tuple[float, float] = (0.0, float("inf")),
    different: bool = True,
) -> list[Choices]:
    """Networks, uniform over those whose cost is in the window, by rejection.

    Args:
        different: none twice.

    Raises:
        UserError: networks of such a cost are too rare.
    """
    rng = random.Random(seed)
    found: list[Choices] = []
    for _ in range(TRIES):
        if len(found) == number:
            break
        index = {key: rng.randrange(len(decision.options)) for key, decision in decisions.items()}
        if cost is not None and not window[0] <= cost.at(index) <= window[1]:
            continue
        choices = {key: decisions[key].options[k] for key, k in index.items()}
        if not different or choices not in found:
            found.append(choices)
    if len(found) < number:
        raise UserError(
            f"networks: found {len(found)} different ones among {TRIES:,} random ones that cost {window[0]:,.0f} to"
            f" {window[1]:,.0f}, asked for {number}"
        )
    return found
