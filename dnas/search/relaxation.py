"""The relaxation: owns every architecture logit and makes one draw per step.

The supernet's modules and the cost read the same draw. Shapes: H holes, K options (padded to the most).

    g = softmax((a + Gumbel) / tau)                                Gumbel-softmax (arXiv 1611.01144)
    full:     weights g                                            FBNet (arXiv 1812.03443)
    sampled:  one-hot of the largest g forward, gradient of g      GDAS (arXiv 1910.04465); biased
    score:    the same draw; (L - baseline) grad log p(draw)       score function (REINFORCE); unbiased, more variance
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dnas.space.holes import Channels
from dnas.space.spec import Choices, Decision

Mode = Literal["full", "sampled", "score"]
BASELINE_DECAY = 0.95


class Draw:
    """One draw: for every hole the weights of its options and, if it is one-hot, which option.

    One object per supernet, refilled at each step; the modules hold a reference to it.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.index: dict[str, int] | None = None
        self._masks: dict[Channels, Tensor] = {}
        self._tables: dict[tuple[Channels, torch.device, torch.dtype], Tensor] = {}

    def set(self, weights: dict[str, Tensor], index: dict[str, int] | None) -> None:
        self.weights, self.index = weights, index
        self._masks = {}

    def mask(self, c: Channels) -> Tensor:
        """The channel mask sum_k g_k [channel < c_k] of an open width, shape (C,). Computed once a draw."""
        if c not in self._masks:
            assert c.key is not None
            weights_K = self.weights[c.key]
            place = (c, weights_K.device, weights_K.dtype)
            if place not in self._tables:
                channel_C = torch.arange(c.size, device=weights_K.device)
                count_K1 = torch.tensor(c.values, device=weights_K.device)[:, None]
                self._tables[place] = (channel_C < count_K1).to(weights_K.dtype)
            self._masks[c] = weights_K @ self._tables[place]
        return self._masks[c]

    def width(self, c: Channels) -> Tensor:
        """The effective width sum_k g_k c_k, a scalar."""
        return self.mask(c).sum()


class Relaxation(nn.Module):
    """Architecture logits of a space.

    Args:
        decisions: what is open, from `dnas.space.spec.decisions`.
    """

    def __init__(self, decisions: Mapping[str, Decision]) -> None:
        super().__init__()
        self.decisions = dict(decisions)
        most = max((len(d.options) for d in self.decisions.values()), default=1)
        self.logits_HK = nn.Parameter(torch.zeros(len(self.decisions), most))
        count_H1 = torch.tensor([len(d.options) for d in self.decisions.values()]).view(-1, 1)
        self.register_buffer("absent_HK", torch.arange(most) >= count_H1, persistent=False)
        self.absent_HK: Tensor
        idle_HK = torch.zeros_like(self.absent_HK)
        for h, decision in enumerate(self.decisions.values()):
            if len(decision.idle) < len(decision.options):
                idle_HK[h, list(decision.idle)] = True
        self.register_buffer("idle_HK", idle_HK, persistent=False)
        self.idle_HK: Tensor
        self.register_buffer("baseline_2", torch.zeros(2))  # sum and weight of a moving average of the loss
        self.baseline_2: Tensor
        self.draw = Draw()
        self.log_probability: Tensor | None = None
        """Of the current draw, in `score` with gradient."""

    def sample(
        self,
        temperature: float,
        mode: Mode,
        generator: torch.Generator,
        gradient: bool = True,
        idle_dropout: float = 0.0,
    ) -> None:
        """Draw an architecture: refills `self.draw`. Unless `full` it waits for the device once, to know what to run.

        Args:
            temperature: tau of the Gumbel-softmax.
            generator: on the CPU; the same seed gives the same draw on every rank.
            gradient: whether the draw carries a gradient to the logits.
            idle_dropout: probability that a choice leaves out its skip and zero options in this draw.
        """
        shape, device, dtype = self.logits_HK.shape, self.logits_HK.device, self.logits_HK.dtype
        gumbel_HK = self._gumbel(generator)
        without = None
        if idle_dropout > 0:
            without = (torch.rand(shape[0], generator=generator) < idle_dropout).to(device)
        self.set_noise(gumbel_HK.to(device, dtype), temperature, mode, gradient, without)

    def set_noise(
        self,
        gumbel_HK: Tensor,
        temperature: float,
        mode: Mode,
        gradient: bool = True,
        without_idle_H: Tensor | None = None,
    ) -> None:
        """The draw for given Gumbel noise; choices in `without_idle_H` leave out skip and zero."""
        logits_HK = self.logits_HK if gradient else self.logits_HK.detach()
        absent_HK = self.absent_HK
        if without_idle_H is not None:
            absent_HK = absent_HK | (self.idle_HK & without_idle_H[:, None])
        soft_HK = ((logits_HK + gumbel_HK) / temperature).masked_fill(absent_HK, -torch.inf).softmax(1)
        self.log_probability = None
        if mode == "full":
            self.draw.set(self._rows(soft_HK), None)
            return
        index_H = soft_HK.argmax(1)
        weights_HK = torch.zeros_like(soft_HK).scatter_(1, index_H[:, None], 1.0)
        if mode == "sampled" and gradient:
            weights_HK = weights_HK + (soft_HK - soft_HK.detach())
        elif gradient:
            log_p_HK = logits_HK.masked_fill(absent_HK, -torch.inf).log_softmax(1)
            self.log_probability = log_p_HK.gather(1, index_H[:, None]).sum()
            weights_HK = weights_HK.detach()
        self.draw.set(self._rows(weights_HK), dict(zip(self.decisions, index_H.tolist(), strict=True)))

    def score_term(self, loss: Tensor) -> Tensor:
        """What to add to the loss of a draw so that its gradient is unbiased in the logits; zero unless `score`.

        (L - baseline) log p(draw). The baseline is a moving average of the losses before this one, so it does not
        depend on this draw; the first loss only sets it.
        """
        if self.log_probability is None:
            return loss.new_zeros(())
        value = loss.detach()
        total, weight = self.baseline_2
        advantage = torch.where(weight > 0, value - total / weight.clamp(min=1e-9), 0.0)
        new = torch.stack([value.to(total.dtype), torch.ones_like(weight)])
        self.baseline_2 = BASELINE_DECAY * self.baseline_2 + (1 - BASELINE_DECAY) * new
        return advantage * self.log_probability

    def fix(self, choices: Choices) -> None:
        """The one-hot draw of given choices, without gradient."""
        index = {key: decision.index(choices[key]) for key, decision in self.decisions.items()}
        hard_HK = torch.zeros_like(self.logits_HK)
        hard_HK[torch.arange(len(index)), list(index.values())] = 1.0
        self.draw.set(self._rows(hard_HK), index)

    def mix(self) -> None:
        """The draw in which every option counts by its probability, without gradient."""
        self.draw.set({key: p.detach() for key, p in self.distribution().items()}, None)

    def perturbed(self, generator: torch.Generator) -> dict[str, list[float]]:
        """Logits plus Gumbel noise: their largest sum is a sample (perturb-and-MAP, Papandreou and Yuille 2011)."""
        noisy_HK = self.logits_HK.detach().cpu() + self._gumbel(generator)
        return {key: row.tolist() for key, row in self._rows(noisy_HK).items()}

    def distribution(self) -> dict[str, Tensor]:
        """softmax(a) of every decision, differentiable: the probabilities that a draw takes each option."""
        return self._rows(self.logits_HK.masked_fill(self.absent_HK, -torch.inf).softmax(1))

    def probabilities(self) -> dict[str, Tensor]:
        """softmax(a) of every decision, without gradient, on the CPU."""
        return {key: p.detach().cpu() for key, p in self.distribution().items()}

    def mean_entropy(self) -> Tensor:
        """Mean entropy (nats) of softmax(a) over the holes, differentiable."""
        log_p_HK = self.logits_HK.masked_fill(self.absent_HK, -1e4).log_softmax(1)  # finite: 0 log 0 without NaN
        return -(log_p_HK.exp() * log_p_HK).sum() / max(len(self.decisions), 1)

    def logits(self) -> dict[str, list[float]]:
        return {key: row.tolist() for key, row in self._rows(self.logits_HK.detach().cpu()).items()}

    def _gumbel(self, generator: torch.Generator) -> Tensor:
        uniform_HK = torch.rand(self.logits_HK.shape, generator=generator, dtype=torch.float64)
        return -(-uniform_HK.clamp(1e-12, 1 - 1e-12).log()).log()

    def _rows(self, rows_HK: Tensor) -> dict[str, Tensor]:
        return {key: rows_HK[h, : len(d.options)] for h, (key, d) in enumerate(self.decisions.items())}


def entropies(probabilities: Mapping[str, Tensor]) -> dict[str, float]:
    """Entropy of every decision divided by that of the uniform choice: 1 is undecided, 0 decided."""
    found = {}
    for key, p in probabilities.items():
        most = torch.tensor(float(max(len(p), 2))).log()
        found[key] = float(torch.special.entr(p.double()).sum() / most)
    return found
