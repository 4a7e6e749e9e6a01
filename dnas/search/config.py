"""Settings of a search."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from dnas.errors import UserError, check_range
from dnas.run.schedules import OptimConfig
from dnas.task.config import JobConfig

UNITS = {
    "macs": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "params": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "latency": {"us": 1e3, "ms": 1e6, "s": 1e9},  # counted in nanoseconds
}
EXAMPLES = {"macs": "300M", "params": "2.5M", "latency": "8ms"}


LEAST = 5
"""Fewer random networks say nothing about the found one."""
LEAST_EXPLAINED = 20
"""Fewer random networks say nothing of the options."""


@dataclass(frozen=True)
class BudgetConfig:
    """What the derived network may cost: one of MACs, parameters and latency, or nothing.

    Args:
        macs: multiply-accumulates for one image, such as 300M.
        params: parameters, such as 2.5M.
        latency: time for one batch by the table `latency_table`, such as 8ms.
        latency_table: file that `dnas latency` wrote for this space on the device to serve.
        weight: lambda, weight of the cost term in the loss of the logits.
            It grows linearly over the epochs, so that the task speaks first.
        aim: `at` pulls the cost towards the budget from both sides, |log(cost / budget)|; `below` only from above,
            relu(log(cost / budget)). The cost is that of each draw, with what the alternatives add to it, which is not
            content with a mixture of cheap and dear networks; in modes `sampled` and `full` the expected one.
    """

    macs: str | float | None = None
    params: str | float | None = None
    latency: str | None = None
    latency_table: str | None = None
    weight: float = 1.0
    aim: Literal["at", "below"] = "at"

    def __post_init__(self) -> None:
        given = [kind for kind in UNITS if getattr(self, kind) is not None]
        if len(given) > 1:
            raise UserError(f"budget: found {' and '.join(given)}, allowed: one of {', '.join(UNITS)}")
        if (self.latency is None) != (self.latency_table is None):
            raise UserError("budget: latency and latency_table go together (make the table with: dnas latency)")
        for kind in given:
            self._number(kind)
        check_range(self, "budget.", 0, math.inf, "weight")

    @property
    def kind(self) -> str:
        """Which cost is limited: macs, params or latency (macs where nothing is)."""
        return next((kind for kind in UNITS if getattr(self, kind) is not None), "macs")

    @property
    def limit(self) -> float | None:
        """The budget in MACs, parameters or nanoseconds."""
        return None if getattr(self, self.kind) is None else self._number(self.kind)

    @property
    def unit(self) -> str:
        """What the limit is counted in, for messages."""
        return {"macs": "MACs", "params": "parameters", "latency": "ns"}[self.kind]

    def _number(self, kind: str) -> float:
        value, units = getattr(self, kind), UNITS[kind]
        found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([a-zA-Z]*)", str(value))
        if not found or found[2] not in units or float(found[1]) <= 0:
            allowed = " or ".join(unit for unit in units if unit)
            raise UserError(
                f"budget.{kind}: found '{value}', allowed: a number with {allowed}, such as {EXAMPLES[kind]}"
            )
        return float(found[1]) * units[found[2]]


@dataclass(frozen=True)
class ArchConfig:
    """How the architecture logits are trained.

    Args:
        mode: how the logits get their gradient: `between` runs a point on the way from the drawn option of a choice to
            another one, `switch` the drawn one, and forward only what it is held against (`alternatives`), `sampled`
            the drawn one (straight-through, biased), `score` as well (score function, unbiased, noisier the more
            choices there are), `full` every option.
        alternatives: what `switch` holds against the drawn option of each choice: one other, or all of them; each
            costs a forward pass of its operation.
        draws: architectures that one `score` step compares on one batch; each costs a forward pass.
        data: `joint` trains weights and logits on all images, `split` weights on 80 % of each identity's images and
            logits on the others.
        lr: learning rate of Adam on the logits.
        temperature: tau of the Gumbel-softmax in the first epoch (`full`, `sampled`; the others have none).
        temperature_end: tau in the last epoch.
        weights_only: share of the epochs at the start that train weights alone; none: measured, until the supernet's
            verdict on random networks keeps to what it was, at most half of the epochs (`dnas.search.beginning`).
        weights_draws: what the draws that train the weights follow once logits learn: the `logits`, the `uniform`
            distribution, or `both`, from the uniform one to the logits in the course of the epochs; none: `both` where
            the estimator can learn beside such draws, else the logits.
        share: let options share weights where they can: inverted residuals that differ in kernel and expansion alone,
            transformer stages that differ in channel selection alone.
        entropy: weight of the mean entropy of the choices in the loss of the logits at the end; it grows linearly from
            its negative, so that choices stay open at first and settle later (0: off).
        idle_dropout: probability, falling to zero over the epochs, that a draw leaves out a choice's skip and zero:
            against searches that collapse into skips before the other operations have learnt.
        prior: where the logits start; none: all options alike; `naswot`: by a score that needs no training (arXiv
            2006.04647), what each option adds to it over random networks, within the budget where there is one;
            `auto`: by that where it tells networks apart, else alike, and the log says so.
        prior_weight: a network is believed to be as likely as exp(prior_weight * what its options explain of its
            score), in standard deviations of the scores.
        samples: different networks within the budget to draw at the end and judge on what is held out (0: none; the
            network of largest summed logits is taken).
        samples_from: where they are drawn. `uniform`: evenly, of 93 to 100 % of the budget (where those are rare,
            anywhere within it); what is taken is the network whose options add most to these verdicts and to the score
            of `prior`, and where there are fewer than 20 the logits derive it. Those of the other two are held against
            the network of largest summed logits, and the best is taken: drawn by the `logits`, or `neighbours` of the
            best one so far, which differ from it in one choice (local search, arXiv 2005.02960).
        samples_epochs: of a short training on its own, by which they are compared; costs that much for each of them
            (0: with inherited weights, which tell good ones less well apart).
    """

    mode: str = "between"
    alternatives: Literal["one", "all"] = "one"
    draws: int = 4
    data: Literal["split", "joint"] = "joint"
    lr: float = 0.02
    temperature: float = 5.0
    temperature_end: float = 0.5
    weights_only: float | None = None
    weights_draws: Literal["logits", "uniform", "both"] | None = None
    share: bool = True
    entropy: float = 0.0
    idle_dropout: float = 0.9
    prior: Literal["auto", "naswot"] | None = "auto"
    prior_weight: float = 3.0
    samples: int = 100
    samples_from: Literal["uniform", "logits", "neighbours"] = "uniform"
    samples_epochs: int = 0

    def __post_init__(self) -> None:
        check_range(self, "arch.", 1e-3, 1e3, "temperature", "temperature_end")
        check_range(self, "arch.", 2, 1000, "draws")
        check_range(self, "arch.", 0, math.inf, "lr", "entropy", "prior_weight", "samples", "samples_epochs")
        if self.samples_epochs and not self.samples:
            raise UserError(f"arch.samples_epochs: found {self.samples_epochs}, allowed without arch.samples: 0")
        if self.by_options and self.samples < LEAST_EXPLAINED:
            raise UserError(
                f"arch.samples: found {self.samples}, allowed with arch.samples_from uniform: 0,"
                f" or {LEAST_EXPLAINED} and more"
            )
        check_range(self, "arch.", 0, 0.99, "idle_dropout", *([] if self.weights_only is None else ["weights_only"]))

    @property
    def by_options(self) -> bool:
        """Whether what options add to held-out verdicts derives the network, in place of the logits."""
        return self.samples > 0 and self.samples_from == "uniform"


@dataclass(frozen=True)
class SearchConfig(JobConfig):
    """Search a space for an architecture.

    Args:
        data: data set (docs/data.md): a folder or CSV manifest; several with commas between, to search on all of them.
        out: run folder to write.
        task: what the network is for: `reid` (find the same identity again) or `classify` (say which class).
        space: name of a search space, or a Python file that defines SPACE.
        weights: torchvision state dict for the fixed parts of a space (attention_sites); none: start from scratch.
        weights_grid: rows x columns of the patches that a file's vision transformer saw (16x8), where it is no square.
        cameras: what a query may be matched with, held out or tested: images of `other` cameras, or any but its own
            (`ignore`); `auto` is `other` where the data say which camera took an image.
        seed: of everything random.
        holdout: share of the training identities (classify: images) that decisions are made on.
        eval_every: epochs between looks at what is held out with the derived network (0: at the end only).
        verify: random networks of the found one's cost to train shortly on their own at the end, as the found one: is
            it better, and does the supernet rank them rightly (0: not asked).
        verify_epochs: of such a training.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    space: str = "tiny_reid"
    weights: str | None = None
    weights_grid: str | None = None
    holdout: float = 0.1
    eval_every: int = 5
    verify: int = 0
    verify_epochs: int = 5
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(epochs=40))
    arch: ArchConfig = field(default_factory=ArchConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "", 0.001, 0.999, "holdout")
        check_range(self, "", 1, math.inf, "verify_epochs")
        if self.verify and self.verify < LEAST:
            raise UserError(f"verify: found {self.verify}, allowed: 0, or {LEAST} networks and more")
