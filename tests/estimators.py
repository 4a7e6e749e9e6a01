"""Estimators for tests that have logits and no search around them."""

from typing import Any

import torch

from dnas.search.config import ArchConfig
from dnas.search.estimators import ESTIMATORS
from dnas.search.estimators.estimator import Estimator
from dnas.search.relaxation import Relaxation


def estimator(mode: str, relaxation: Relaxation, budget: Any = None, **arch: Any) -> Estimator:
    """The estimator `mode` of these logits; without a budget it can draw, but not learn."""
    return ESTIMATORS[mode](relaxation, budget, ArchConfig(mode, **arch))


def sample(mode: str, relaxation: Relaxation, generator: torch.Generator, gradient: bool = True) -> None:
    """One draw at temperature 1, in use."""
    found = estimator(mode, relaxation)
    found.draw(1, 1.0, generator)
    found.use(0, gradient)
