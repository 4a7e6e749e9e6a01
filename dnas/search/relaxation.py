"""The relaxation: owns every architecture logit and makes one draw per step.

The supernet's modules and the cost read the same draw. Shapes: H holes, K options (padded to the most).

    g = softmax((a + Gumbel) / tau)                                Gumbel-softmax (arXiv 1611.01144)
    full:     weights g                                            FBNet (arXiv 1812.03443)
    sampled:  one-hot of the largest g forward, gradient of g      GDAS (arXiv 1910.04465)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dnas.space.holes import Channels
from dnas.space.spec import Choices, Decision

Mode = Literal["full", "sampled"]


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
        self.draw = Draw()

    def sample(self, temperature: float, mode: Mode, generator: torch.Generator, gradient: bool = True) -> None:
        """Draw an architecture: refills `self.draw`. In `sampled` it waits for the device once, to know what to run.

        Args:
            temperature: tau of the Gumbel-softmax.
            generator: on the CPU; the same seed gives the same draw on every rank.
            gradient: whether the draw carries a gradient to the logits.
        """
        shape, device, dtype = self.logits_HK.shape, self.logits_HK.device, self.logits_HK.dtype
        uniform_HK = torch.rand(shape, generator=generator, dtype=torch.float64)
        gumbel_HK = -(-uniform_HK.clamp(1e-12, 1 - 1e-12).log()).log()
        self.set_noise(gumbel_HK.to(device, dtype), temperature, mode, gradient)

    def set_noise(self, gumbel_HK: Tensor, temperature: float, mode: Mode, gradient: bool = True) -> None:
        """The draw for given Gumbel noise."""
        logits_HK = self.logits_HK if gradient else self.logits_HK.detach()
        soft_HK = ((logits_HK + gumbel_HK) / temperature).masked_fill(self.absent_HK, -torch.inf).softmax(1)
        if mode == "full":
            self.draw.set(self._rows(soft_HK), None)
            return
        index_H = soft_HK.argmax(1)
        hard_HK = torch.zeros_like(soft_HK).scatter_(1, index_H[:, None], 1.0)
        weights_HK = hard_HK + (soft_HK - soft_HK.detach()) if gradient else hard_HK
        self.draw.set(self._rows(weights_HK), dict(zip(self.decisions, index_H.tolist(), strict=True)))

    def fix(self, choices: Choices) -> None:
        """The one-hot draw of given choices, without gradient."""
        index = {key: decision.index(choices[key]) for key, decision in self.decisions.items()}
        hard_HK = torch.zeros_like(self.logits_HK)
        hard_HK[torch.arange(len(index)), list(index.values())] = 1.0
        self.draw.set(self._rows(hard_HK), index)

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


def entropies(probabilities: Mapping[str, Tensor]) -> dict[str, float]:
    """Entropy of every decision divided by that of the uniform choice: 1 is undecided, 0 decided."""
    found = {}
    for key, p in probabilities.items():
        most = torch.tensor(float(max(len(p), 2))).log()
        found[key] = float(torch.special.entr(p.double()).sum() / most)
    return found
