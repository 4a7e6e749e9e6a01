"""The relaxation: owns every architecture logit, and the draw that the supernet's modules and the cost read.

What is made of the logits is an estimator's business (`dnas.search.estimators`); here is what most of them share, draws
by additive Gumbel noise: the largest of a + Gumbel is a sample of softmax(a), and softmax((a + Gumbel) / tau) its
relaxation (Gumbel-softmax, arXiv 1611.01144). Shapes: N draws, H holes, K options (padded to the most).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dnas.run import distributed
from dnas.space.holes import Channels
from dnas.space.spec import Choices, Decision

Rule = Callable[["Draw", str, Callable[[int], Tensor], int], Tensor]
"""What a choice puts out, of the draw, the choice's key, what runs an option, and how many there are."""


def weighted(draw: Draw, key: str, run: Callable[[int], Tensor], count: int) -> Tensor:
    """The drawn option alone, or the weighted sum of all.

    The drawn one is multiplied by its weight, which is 1, where that carries a gradient (straight-through).
    """
    weights_K = draw.weights[key]
    if draw.index is None:
        parts = [(y := run(k)) * weights_K[k].to(y.dtype) for k in range(count)]
        return torch.stack(parts).sum(0) if count > 8 else sum(parts[1:], parts[0])
    y = run(draw.index[key])
    return y * weights_K[draw.index[key]].to(y.dtype) if weights_K.requires_grad else y


class Draw:
    """One draw: for every hole the weights of its options and, if it is one-hot, which option.

    One object per supernet, refilled at each step; the modules hold a reference to it.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.index: dict[str, int] | None = None
        self.rule: Rule = weighted
        self.trying = False
        self._masks: dict[tuple[Channels, bool], Tensor] = {}
        self._tables: dict[tuple[Channels, torch.device, torch.dtype], Tensor] = {}

    def set(self, weights: dict[str, Tensor], index: dict[str, int] | None, rule: Rule = weighted) -> None:
        """Refill it.

        Args:
            index: the option that each choice runs; none: all of them.
            rule: what a choice makes of its options.
        """
        self.weights, self.index, self.rule = weights, index, rule
        self._masks = {}

    def combine(self, key: str, run: Callable[[int], Tensor], count: int) -> Tensor:
        """What the choice `key` puts out under this draw.

        Args:
            run: computes what option number k puts out.
            count: how many options there are.
        """
        return self.rule(self, key, run, count)

    def share(self, momentum: float | None) -> float:
        """By how much a batch norm moves its running statistics: by none where it is only tried out."""
        return 0.0 if self.trying else 0.1 if momentum is None else momentum

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """What runs in here is an alternative to the draw: batch norms leave their running statistics alone."""
        before, self.trying = self.trying, True
        try:
            yield
        finally:
            self.trying = before

    def __deepcopy__(self, memo: dict[int, object]) -> Draw:
        """Itself: a copy of a supernet follows the same draw."""
        return self

    def mask(self, c: Channels) -> Tensor:
        """The channel mask sum_k g_k [channel < c_k] of an open width, shape (C,). Computed once a draw."""
        kept = (c, torch.is_grad_enabled())  # one that was computed without gradient serves nobody who needs it
        if kept not in self._masks:
            assert c.key is not None
            weights_K = self.weights[c.key]
            place = (c, weights_K.device, weights_K.dtype)
            if place not in self._tables:
                with torch.inference_mode(False):  # it is kept: later steps train with it
                    channel_C = torch.arange(c.size, device=weights_K.device)
                    count_K1 = torch.tensor(c.values, device=weights_K.device)[:, None]
                    self._tables[place] = (channel_C < count_K1).to(weights_K.dtype)
            self._masks[kept] = weights_K @ self._tables[place]
        return self._masks[kept]

    def width(self, c: Channels) -> Tensor:
        """The effective width sum_k g_k c_k, a scalar."""
        return self.mask(c).sum()


@dataclass(frozen=True)
class Draws:
    """Architectures that were drawn together by Gumbel noise.

    Args:
        noise_NHK: Gumbel noise, on the CPU.
        absent_HK: options that could not be drawn, on the CPU.
        index_NH: the option with the largest noisy logit, on the CPU; none where all options run.
        temperature: tau.
        followed_NHK: log probabilities that the draws follow, on the CPU; none: those of the logits.
    """

    noise_NHK: Tensor
    absent_HK: Tensor
    index_NH: Tensor | None
    temperature: float
    followed_NHK: Tensor | None = None


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
        self._absent_HK = torch.arange(most) >= count_H1  # these two stay on the CPU, where draws are made
        self._idle_HK = torch.zeros_like(self._absent_HK)
        for h, decision in enumerate(self.decisions.values()):
            if len(decision.idle) < len(decision.options):
                self._idle_HK[h, list(decision.idle)] = True
        self.register_buffer("absent_HK", self._absent_HK.clone(), persistent=False)
        self.absent_HK: Tensor
        self._host: tuple[int, Tensor] | None = None
        self.draw = Draw()

    @torch.no_grad()
    def start(self, logits: Mapping[str, Sequence[float]]) -> None:
        """Set the logits, an entry for every option of every decision. All ranks take those of the first."""
        for h, key in enumerate(self.decisions):
            row = torch.tensor(logits[key], dtype=self.logits_HK.dtype)
            self.logits_HK[h, : len(row)] = row.to(self.logits_HK.device)
        distributed.broadcast(self.logits_HK)

    def draws(
        self,
        count: int,
        temperature: float,
        generator: torch.Generator,
        idle_dropout: float = 0.0,
        one_hot: bool = True,
        uniform: float = 0.0,
    ) -> Draws:
        """Draw architectures.

        Args:
            temperature: tau of the Gumbel-softmax.
            generator: on the CPU; the same seed gives the same draws on every rank.
            idle_dropout: probability that a choice leaves out its skip and zero options in these draws.
            one_hot: whether to look which options were drawn. That waits for the device where the logits have changed.
            uniform: share of the uniform distribution in what draw number 0 follows.
        """
        uniform_NHK = torch.rand((count, *self.logits_HK.shape), generator=generator, dtype=torch.float64)
        without_H = None
        if idle_dropout > 0:
            without_H = torch.rand(len(self.decisions), generator=generator) < idle_dropout
        return self.draws_for(_gumbel(uniform_NHK), temperature, without_H, one_hot, uniform)

    def draws_for(
        self,
        gumbel_NHK: Tensor,
        temperature: float,
        without_idle_H: Tensor | None = None,
        one_hot: bool = True,
        uniform: float = 0.0,
    ) -> Draws:
        """The draws for given Gumbel noise; choices in `without_idle_H` leave out skip and zero."""
        absent_HK = self._absent_HK
        if without_idle_H is not None:
            absent_HK = absent_HK | (self._idle_HK & without_idle_H[:, None])
        noise_NHK = gumbel_NHK.to(self.logits_HK.dtype)
        index_NH = followed_NHK = None
        if one_hot:
            logits_HK = self.host_logits()
            if uniform > 0:
                p_HK = logits_HK.masked_fill(absent_HK, -torch.inf).softmax(1)
                even_HK = (~absent_HK).to(p_HK.dtype) / (~absent_HK).sum(1, keepdim=True)
                followed_NHK = logits_HK.repeat(len(noise_NHK), 1, 1)
                followed_NHK[0] = ((1 - uniform) * p_HK + uniform * even_HK).log()
            noisy_NHK = noise_NHK + (logits_HK if followed_NHK is None else followed_NHK)
            index_NH = noisy_NHK.masked_fill(absent_HK, -torch.inf).argmax(2)
        return Draws(noise_NHK, absent_HK, index_NH, temperature, followed_NHK)

    def followed(self, draws: Draws, n: int) -> Tensor:
        """What draw number n follows, (H, K) on the CPU: log probabilities up to a constant, or -inf."""
        followed_HK = self.host_logits() if draws.followed_NHK is None else draws.followed_NHK[n]
        return followed_HK.masked_fill(draws.absent_HK, -torch.inf)

    def host_logits(self) -> Tensor:
        """The logits (H, K) on the CPU. Waits for the device only if they have changed since the last call.

        Of several ranks all have those of the first: ranks whose logits differ in the last bit must still run one
        network.
        """
        logits_HK = self.logits_HK.detach()
        if not distributed.active() and logits_HK.device.type == "cpu":
            return logits_HK
        version, known = self.logits_HK._version, self._host
        if known is None or known[0] != version:
            logits_HK = logits_HK.clone()
            distributed.broadcast(logits_HK)
            known = self._host = (version, logits_HK.cpu())
        return known[1]

    def soft(self, draws: Draws, n: int, gradient: bool) -> Tensor:
        """softmax((a + noise) / tau) of draw number n, (H, K).

        Args:
            gradient: whether it carries one to the logits.
        """
        logits_HK = self.logits_HK if gradient else self.logits_HK.detach()
        noise_HK, absent_HK = self._sent(draws.noise_NHK[n]), self._sent(draws.absent_HK)
        return ((logits_HK + noise_HK).masked_fill(absent_HK, -torch.inf) / draws.temperature).softmax(1)

    def hard(self, draws: Draws, n: int) -> Tensor:
        """Draw number n as ones and zeros, (H, K)."""
        assert draws.index_NH is not None
        zeros_HK = torch.zeros(draws.absent_HK.shape, dtype=self.logits_HK.dtype)
        return self._sent(zeros_HK.scatter_(1, draws.index_NH[n][:, None], 1.0))

    def numbers(self, draws: Draws, n: int) -> dict[str, int]:
        """Draw number n as option numbers."""
        assert draws.index_NH is not None
        return dict(zip(self.decisions, draws.index_NH[n].tolist(), strict=True))

    def preferred(self, draws: Draws, n: int) -> dict[str, int]:
        """What the noise of draw number n would have drawn by the logits, whatever it followed."""
        noisy_HK = (self.host_logits() + draws.noise_NHK[n]).masked_fill(draws.absent_HK, -torch.inf)
        return dict(zip(self.decisions, noisy_HK.argmax(1).tolist(), strict=True))

    def _sent(self, tensor: Tensor) -> Tensor:
        """To the logits' device; the host does not wait for it."""
        if self.logits_HK.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.logits_HK.device, non_blocking=True)

    def log_probability(self, draws: Draws, used: Sequence[Collection[str]] | None = None) -> Tensor:
        """log p of every draw under softmax(a), shape (N,), differentiable.

        Args:
            used: the decisions that count in each draw; none: all of them.
        """
        assert draws.index_NH is not None
        log_p_HK = self.logits_HK.masked_fill(self._sent(draws.absent_HK), -torch.inf).log_softmax(1)
        index_NH1 = self._sent(draws.index_NH)[:, :, None]
        log_p_NH = log_p_HK.expand(len(index_NH1), -1, -1).gather(2, index_NH1)[:, :, 0]
        if used is not None:
            counts_NH = [[float(key in keys) for key in self.decisions] for keys in used]
            log_p_NH = log_p_NH * self._sent(torch.tensor(counts_NH, dtype=log_p_HK.dtype))
        return log_p_NH.sum(1)

    def probability(self, draws: Draws) -> Tensor:
        """softmax(a) over the options that could be drawn, (H, K), differentiable."""
        return self.logits_HK.masked_fill(self._sent(draws.absent_HK), -torch.inf).softmax(1)

    def runners_up(self, draws: Draws, n: int) -> dict[str, int | None]:
        """The option with the second largest noisy logit of every decision: a sample of the probabilities without the
        drawn one (Gumbel-top-k, arXiv 1903.06059). None where there was only one to draw.
        """
        noisy_HK = self.followed(draws, n) + draws.noise_NHK[n]
        if noisy_HK.shape[1] < 2:
            return dict.fromkeys(self.decisions)
        value_H2, index_H2 = noisy_HK.topk(2)
        possible = (value_H2[:, 1] > -torch.inf).tolist()
        second = index_H2[:, 1].tolist()
        return {key: second[h] if possible[h] else None for h, key in enumerate(self.decisions)}

    def drawn(self) -> dict[str, int]:
        """The option numbers of the current one-hot draw."""
        assert self.draw.index is not None
        return self.draw.index

    def fix(self, choices: Choices) -> None:
        """The one-hot draw of given choices, without gradient."""
        index = {key: decision.index(choices[key]) for key, decision in self.decisions.items()}
        hard_HK = torch.zeros_like(self.logits_HK)
        hard_HK[torch.arange(len(index)), list(index.values())] = 1.0
        self.draw.set(self.rows(hard_HK), index)

    def mix(self) -> None:
        """The draw in which every option counts by its probability, without gradient."""
        self.draw.set({key: p.detach() for key, p in self.distribution().items()}, None)

    def perturbed(self, generator: torch.Generator) -> dict[str, list[float]]:
        """Logits plus Gumbel noise: their largest sum is a sample (perturb-and-MAP, Papandreou and Yuille 2011)."""
        uniform_HK = torch.rand(self.logits_HK.shape, generator=generator, dtype=torch.float64)
        noisy_HK = self.logits_HK.detach().cpu() + _gumbel(uniform_HK)
        return {key: row.tolist() for key, row in self.rows(noisy_HK).items()}

    def distribution(self) -> dict[str, Tensor]:
        """softmax(a) of every decision, differentiable: the probabilities that a draw takes each option."""
        return self.rows(self.logits_HK.masked_fill(self.absent_HK, -torch.inf).softmax(1))

    def probabilities(self) -> dict[str, Tensor]:
        """softmax(a) of every decision, without gradient, on the CPU."""
        return {key: p.detach().cpu() for key, p in self.distribution().items()}

    def mean_entropy(self) -> Tensor:
        """Mean entropy (nats) of softmax(a) over the holes, differentiable."""
        log_p_HK = self.logits_HK.masked_fill(self.absent_HK, -1e4).log_softmax(1)  # finite: 0 log 0 without NaN
        return -(log_p_HK.exp() * log_p_HK).sum() / max(len(self.decisions), 1)

    def logits(self) -> dict[str, list[float]]:
        return {key: row.tolist() for key, row in self.rows(self.logits_HK.detach().cpu()).items()}

    def rows(self, rows_HK: Tensor) -> dict[str, Tensor]:
        """A padded (H, K) tensor as one row of options for every decision."""
        return {key: rows_HK[h, : len(d.options)] for h, (key, d) in enumerate(self.decisions.items())}


def entropies(probabilities: Mapping[str, Tensor]) -> dict[str, float]:
    """Entropy of every decision divided by that of the uniform choice: 1 is undecided, 0 decided."""
    found = {}
    for key, p in probabilities.items():
        most = torch.tensor(float(max(len(p), 2))).log()
        found[key] = float(torch.special.entr(p.double()).sum() / most)
    return found
