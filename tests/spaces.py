"""Random points of the shipped spaces, for tests over all of them."""

import random

from dnas.space.spec import Choice, Space, decisions
from search_spaces import SPACES

ALL = [space.resized(32, 16) for space in SPACES.values()]


def random_choices(space: Space, seed: int) -> dict[str, Choice]:
    """Independent uniform choices."""
    rng = random.Random(seed)
    return {key: rng.choice(decision.options) for key, decision in decisions(space.spec).items()}
