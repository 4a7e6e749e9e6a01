"""The relaxation: owns every architecture logit and makes one draw per step.

The supernet's modules and the cost read the same draw. Shapes: H holes, K options (padded to the most).

    g = softmax((a + Gumbel) / tau)                                Gumbel-softmax (arXiv 1611.01144)
    full:     weights g                                            FBNet (arXiv 1812.03443)
    sampled:  one-hot of the largest g forward, gradient of g      GDAS (arXiv 1910.04465); biased
    score:    sum_r (L_r - mean of the others) grad log p(draw r)  score function, leave-one-out baseline
              (arXiv 1810.03346 and earlier); unbiased, and needs no backward pass

The gradient of `sampled` reaches a logit through the scale of the drawn operation's output alone. Where a batch norm
follows, that scale has no effect, and the gradient of the task is exactly zero (a test shows it); `score` sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dnas.run import distributed
from dnas.space.holes import Channels
from dnas.space.spec import Choices, Decision

Mode = Literal["full", "sampled", "score"]


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
                with torch.inference_mode(False):  # it is kept: later steps train with it
                    channel_C = torch.arange(c.size, device=weights_K.device)
                    count_K1 = torch.tensor(c.values, device=weights_K.device)[:, None]
                    self._tables[place] = (channel_C < count_K1).to(weights_K.dtype)
            self._masks[c] = weights_K @ self._tables[place]
        return self._masks[c]

    def width(self, c: Channels) -> Tensor:
        """The effective width sum_k g_k c_k, a scalar."""
        return self.mask(c).sum()


@dataclass(frozen=True)
class Draws:
    """Architectures that were drawn together. Shapes: N draws, H holes, K options.

    Args:
        noise_NHK: Gumbel noise.
        absent_HK: options that could not be drawn.
        index_NH: the option with the largest noisy logit, on the device.
        numbers: the same as numbers, unless `full`.
    """

    noise_NHK: Tensor
    absent_HK: Tensor
    index_NH: Tensor
    numbers: list[list[int]] | None
    temperature: float
    mode: Mode


def _gumbel(uniform: Tensor) -> Tensor:
    return -(-uniform.clamp(1e-12, 1 - 1e-12).log()).log()


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
        self.draw = Draw()

    def draws(
        self, count: int, temperature: float, mode: Mode, generator: torch.Generator, idle_dropout: float = 0.0
    ) -> Draws:
        """Draw architectures, for `use`. Unless `full` it waits for the device, once, to know what to run.

        Args:
            temperature: tau of the Gumbel-softmax.
            generator: on the CPU; the same seed gives the same draws on every rank.
            idle_dropout: probability that a choice leaves out its skip and zero options in these draws.
        """
        uniform_NHK = torch.rand((count, *self.logits_HK.shape), generator=generator, dtype=torch.float64)
        without_H = None
        if idle_dropout > 0:
            without_H = torch.rand(len(self.decisions), generator=generator) < idle_dropout
        return self.draws_for(_gumbel(uniform_NHK), temperature, mode, without_H)

    def draws_for(
        self, gumbel_NHK: Tensor, temperature: float, mode: Mode, without_idle_H: Tensor | None = None
    ) -> Draws:
        """The draws for given Gumbel noise; choices in `without_idle_H` leave out skip and zero."""
        device, dtype, absent_HK = self.logits_HK.device, self.logits_HK.dtype, self.absent_HK
        if without_idle_H is not None:
            absent_HK = absent_HK | (self.idle_HK & without_idle_H.to(device, non_blocking=True)[:, None])
        noise_NHK = gumbel_NHK.to(device, dtype, non_blocking=True)
        index_NH = (self.logits_HK.detach() + noise_NHK).masked_fill(absent_HK, -torch.inf).argmax(2)
        distributed.broadcast(index_NH)  # ranks whose logits differ in the last bit must still run one network
        numbers = None if mode == "full" else index_NH.tolist()
        return Draws(noise_NHK, absent_HK, index_NH, numbers, temperature, mode)

    def use(self, draws: Draws, n: int, gradient: bool = False) -> None:
        """Make draw number n the current one: refills `self.draw`.

        Args:
            gradient: whether it carries a gradient to the logits (`full`, and `sampled` by straight-through).
        """
        logits_HK = self.logits_HK if gradient else self.logits_HK.detach()
        noisy_HK = (logits_HK + draws.noise_NHK[n]).masked_fill(draws.absent_HK, -torch.inf)
        soft_HK = (noisy_HK / draws.temperature).softmax(1)
        if draws.numbers is None:
            self.draw.set(self._rows(soft_HK), None)
            return
        weights_HK = torch.zeros_like(soft_HK).scatter_(1, draws.index_NH[n][:, None], 1.0)
        if gradient and draws.mode == "sampled":
            weights_HK = weights_HK + (soft_HK - soft_HK.detach())
        self.draw.set(self._rows(weights_HK.detach() if draws.mode == "score" else weights_HK), None)
        self.draw.index = dict(zip(self.decisions, draws.numbers[n], strict=True))

    def log_probability(self, draws: Draws) -> Tensor:
        """log p of every draw under softmax(a), shape (N,), differentiable."""
        log_p_HK = self.logits_HK.masked_fill(draws.absent_HK, -torch.inf).log_softmax(1)
        log_p_NHK = log_p_HK.expand(len(draws.index_NH), -1, -1)
        return log_p_NHK.gather(2, draws.index_NH[:, :, None]).sum((1, 2))

    def sample(self, temperature: float, mode: Mode, generator: torch.Generator, gradient: bool = True) -> None:
        """One draw, in use."""
        self.use(self.draws(1, temperature, mode, generator), 0, gradient)

    def drawn(self) -> dict[str, int]:
        """The option numbers of the current one-hot draw."""
        assert self.draw.index is not None
        return self.draw.index

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
        uniform_HK = torch.rand(self.logits_HK.shape, generator=generator, dtype=torch.float64)
        noisy_HK = self.logits_HK.detach().cpu() + _gumbel(uniform_HK)
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

    def _rows(self, rows_HK: Tensor) -> dict[str, Tensor]:
        return {key: rows_HK[h, : len(d.options)] for h, (key, d) in enumerate(self.decisions.items())}


def leave_one_out(loss_R: Tensor, log_p_R: Tensor) -> Tensor:
    """A surrogate whose gradient is the unbiased estimate of grad E[loss]: each loss against the mean of the others."""
    loss_R = loss_R.detach()
    draws = len(loss_R)
    advantage_R = (loss_R - loss_R.mean()) * draws / (draws - 1)
    return (advantage_R * log_p_R).mean()


def entropies(probabilities: Mapping[str, Tensor]) -> dict[str, float]:
    """Entropy of every decision divided by that of the uniform choice: 1 is undecided, 0 decided."""
    found = {}
    for key, p in probabilities.items():
        most = torch.tensor(float(max(len(p), 2))).log()
        found[key] = float(torch.special.entr(p.double()).sum() / most)
    return found
