"""What an estimator of the logits' gradient is to the search: it draws, says what runs, and what its loss is.

A step draws once (`draw`), trains the weights under draw number 0, and, where logits are trained too, lets the
estimator `learn` from a step of their own, or (with `arch.data: joint`, if it can) from the very step that trains
the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dnas.search.budget import Budget
from dnas.search.config import ArchConfig
from dnas.search.relaxation import Draws, Relaxation


@dataclass(frozen=True)
class Lesson:
    """A loss for the logits.

    Args:
        task: the part that comes through images: of this rank's, its gradients add up over the ranks.
        shared: the part that every rank has alike (cost, entropy, a surrogate).
        watched: scalars that must be finite, by name.
        value: what the log calls the loss of the logits.
    """

    task: Tensor
    shared: Tensor
    watched: Mapping[str, Tensor]
    value: Tensor


class Estimator(ABC):
    """Base of the estimators; a subclass says what a draw makes of the logits (`use`), and rarely more.

    Args:
        relaxation: the logits, and the draw that the supernet's modules read.
        budget: the cost term.
    """

    joint = True
    """Whether the backward pass that trains the weights can train the logits."""
    tempered = True
    """Whether the temperature shapes its draws."""
    one_hot = True
    """Whether a draw runs one option of every choice; else all of them."""
    off_policy = False
    """Whether the logits can learn from a draw that does not follow them."""

    def __init__(self, relaxation: Relaxation, budget: Budget, config: ArchConfig) -> None:
        self.relaxation, self.budget, self.config = relaxation, budget, config
        self.draws: Draws

    @property
    def lessons(self) -> int:
        """How many draws `learn` compares, beside the one that trains the weights."""
        return 1

    def draw(
        self,
        count: int,
        temperature: float,
        generator: torch.Generator,
        idle_dropout: float = 0.0,
        uniform: float = 0.0,
    ) -> None:
        """Draw `count` architectures, for `use`.

        Args:
            temperature: tau of the Gumbel-softmax.
            generator: on the CPU; the same seed gives the same draws on every rank.
            idle_dropout: probability that a choice leaves out its skip and zero options in these draws.
            uniform: share of the uniform distribution in what draw number 0, which trains the weights, follows.
        """
        self.draws = self.relaxation.draws(count, temperature, generator, idle_dropout, self.one_hot, uniform)

    @abstractmethod
    def use(self, n: int, gradient: bool = False) -> None:
        """Make draw number n the current one: refills `relaxation.draw`.

        Args:
            gradient: whether what runs under it carries a gradient to the logits.
        """

    def terms(self, progress: float) -> dict[str, Tensor]:
        """Terms of the logits alone under the current draw, by name: the cost, and the entropy if that is wanted.

        The cost is the expected one: its gradient is exact.

        Args:
            progress: share of the search that is done.
        """
        cost = self.budget.expected_excess(self.relaxation, progress)
        return {"cost": cost} | ({"entropy": self.settling(progress)} if self.config.entropy else {})

    def learn(self, loss: Callable[[], Tensor], progress: float) -> Lesson:
        """The loss of a step of the logits alone: one forward pass under draw number 1.

        Args:
            loss: the task's loss of the logits' batch, computed anew under the current draw at every call.
        """
        self.use(1, gradient=True)
        value, terms = loss(), self.terms(progress)
        shared = sum(terms.values(), torch.zeros_like(value))
        return Lesson(value, shared, {"loss": value, **terms}, value + shared)

    def settling(self, progress: float) -> Tensor:
        """The entropy of the choices: sought at first, avoided at the end."""
        if self.config.entropy == 0:
            return self.relaxation.logits_HK.new_zeros(())
        return self.config.entropy * (2 * progress - 1) * self.relaxation.mean_entropy()
