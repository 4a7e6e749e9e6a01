"""What the networks of a search cost, what they may cost, and the term of the loss that holds them to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnas.search.config import BudgetConfig
from dnas.search.derive import derive
from dnas.search.relaxation import Relaxation
from dnas.space.latency import read_latency
from dnas.space.spec import Space


class Budget:
    """The budget of a search in a space.

    Raises:
        UserError: a latency table that does not fit the space.
    """

    def __init__(self, config: BudgetConfig, space: Space) -> None:
        self.config, self.space = config, space
        self.cost = space.spec.cost(space.input)
        self.count = self.cost.params if config.kind == "params" else self.cost.macs  # what the budget is about
        if config.latency_table is not None:
            self.count = read_latency(Path(config.latency_table), space).count(space.spec, space.input)  # nanoseconds

    def derive(self, relaxation: Relaxation, scores: dict[str, list[float]] | None = None) -> dict[str, Any]:
        """The network of largest summed scores (the logits without) within the budget.

        Raises:
            UserError: no network of the space is within the budget.
        """
        config = self.config
        return derive(relaxation.decisions, scores or relaxation.logits(), self.count, config.limit, config.unit)

    def expected_excess(self, relaxation: Relaxation, progress: float) -> Tensor:
        """The cost term under softmax(a), not under the draw: the expectation has an exact gradient."""
        weights = relaxation.distribution()
        if self.config.limit is None:
            return next(iter(weights.values())).new_zeros(())
        return self.excess(self.count.expected(weights), progress)

    def switched_excess(self, index: Mapping[str, int], p: Mapping[str, Tensor], progress: float) -> Tensor:
        """The cost term of a drawn network, whose gradient knows that of every network which is one switch away.

        Its expectation over the draws is the gradient of the expected term: no mixture of cheap and dear networks
        can pass for one that meets the budget.

        Args:
            index: the option that was drawn for every decision.
            p: the probabilities of its options, differentiable.
        """
        one = next(iter(p.values()))
        own = self.excess(one.new_full((), float(self.count.at(index))), progress)
        if self.config.limit is None:
            return own
        counts = self.count.switched(index)
        keys = [key for key in p if key in counts]
        flat = np.concatenate([counts[key] for key in keys]) if keys else np.zeros(0)
        felt = self.excess(torch.as_tensor(flat, dtype=one.dtype).to(one.device, non_blocking=True), progress)
        weights = torch.cat([p[key] for key in keys]) if keys else one.new_zeros(0)
        return own + ((weights - weights.detach()) * felt).sum()

    def excess(self, cost: Tensor, progress: float) -> Tensor:
        """lambda |log(cost / budget)|, or only what is above it; lambda grows with the progress (0 to 1)."""
        config = self.config
        if config.limit is None:
            return torch.zeros_like(cost)
        excess = torch.log(cost / config.limit)
        return config.weight * progress * (excess.abs() if config.aim == "at" else torch.relu(excess))

    def expected(self, relaxation: Relaxation) -> dict[str, float]:
        """Expected costs under the current probabilities, for logs and genotypes."""
        weights = {key: p.double() for key, p in relaxation.probabilities().items()}
        found = {
            "expected_macs": float(self.cost.macs.expected(weights)),
            "expected_params": float(self.cost.params.expected(weights)),
        }
        if self.config.kind == "latency":
            found["expected_latency_ms"] = float(self.count.expected(weights)) / 1e6
        return found
