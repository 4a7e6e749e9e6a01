"""One step of training: precision, accumulated gradients, clipping, moving averages, several processes.

Every loss is that of the global batch. What does not come through the images (cost and entropy of a search) is the same
on every rank, and so counts as a share of it: gradients are added up over the ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dnas.errors import UserError, check_range
from dnas.nn.network import Network, Output
from dnas.run import distributed
from dnas.run.finite import Watch
from dnas.run.moving_average import MovingAverage
from dnas.run.parameters import Factors, factors_of, set_rate
from dnas.run.schedules import OptimConfig, make_optimiser

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
Objective = Callable[[Output, Any, float], Mapping[str, Tensor]]
"""(output, target, progress) -> loss terms by name."""


@dataclass(frozen=True)
class TrainConfig:
    """How a training step is computed.

    Args:
        accumulate: batches whose gradients are averaged before a step of the optimiser.
        clip: largest norm of the gradient of the weights; 0: not clipped.
        ema: decay per step of a moving average of the weights, which is then what is evaluated; 0: none.
        amp: precision of the network in training: `bf16` or `fp16` (with loss scaling; CUDA only), or `none`.
        compile: let torch.compile make the network faster (in a search: each option of a choice); the first steps take
            a minute or more.
    """

    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    amp: Literal["none", "bf16", "fp16"] = "none"
    compile: bool = False

    def __post_init__(self) -> None:
        check_range(self, "train.", 1, math.inf, "accumulate")
        check_range(self, "train.", 0, math.inf, "clip")
        check_range(self, "train.", 0, 0.999999, "ema")


@dataclass(frozen=True)
class Beside:
    """Parameters beside the network's that a step trains too: the logits of a joint search.

    Args:
        optimiser: theirs; it steps whenever that of the weights does.
        terms: of the loss that are theirs alone, the same on every rank.
    """

    optimiser: torch.optim.Optimizer
    terms: Mapping[str, Tensor]

    def parameters(self) -> Iterable[nn.Parameter]:
        return (p for group in self.optimiser.param_groups for p in group["params"])


class Stepper:
    """A network with everything that changes its weights.

    Args:
        objective: the loss terms; a module, whose buffers are state of the training.
        batches: of an epoch.
        changing: whether what runs differs from step to step (a supernet), so that gradients cannot be sent while
            others are still computed.
    """

    def __init__(
        self,
        net: Network,
        objective: nn.Module,
        optim: OptimConfig,
        config: TrainConfig,
        batches: int,
        changing: bool = False,
    ) -> None:
        self.config, self.optim, self.net, self.objective = config, optim, net, objective
        self.device = next(net.parameters()).device
        if config.amp == "fp16" and self.device.type != "cuda":
            raise UserError(f"train.amp: found fp16 on {self.device.type}, allowed: none, bf16 (fp16 needs cuda)")
        self.steps = math.ceil(batches / config.accumulate)
        self.optimiser = make_optimiser(net, optim, self.steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.ema = MovingAverage(net, config.ema) if config.ema else None
        self.parallel: DistributedDataParallel | None = None
        if distributed.active() and not changing:
            ids = [self.device] if self.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(net, ids, broadcast_buffers=False)
        self.run: nn.Module = self.parallel or net
        if config.compile and not changing:
            self.run = torch.compile(self.run)  # type: ignore[assignment]
        self.waiting = 0
        self.watch = Watch(optim.on_nonfinite)

    @property
    def selection_factors(self) -> Factors:
        """On the learning rate of what selects channels; of a run that was gone on with, those that it began with."""
        return next(factors_of(group) for group in self.optimiser.param_groups if group["kind"] == "selection")

    @property
    def reach(self) -> float:
        """How far a bias that selects channels gets in this run at most."""
        return self.optim.reach(self.steps, self.selection_factors)

    @property
    def final(self) -> Network:
        """What is evaluated: the moving average, if there is one."""
        return self.ema.net if self.ema is not None else self.net

    def forward(self, inputs: Tensor) -> Output:
        """What the network puts out, in the precision of the training."""
        with torch.autocast(self.device.type, HALF.get(self.config.amp), enabled=self.config.amp != "none"):
            found: Output = self.run(inputs)
        return found

    def __call__(
        self, inputs: Tensor, target: Any, at: float, last: bool, beside: Beside | None = None
    ) -> Mapping[str, Tensor]:
        """Forward, backward, and, if enough batches have come, a step of the optimiser. Returns the loss terms.

        Args:
            at: epochs done so far, fractions included.
            last: the last batch of its epoch: what has come is enough.
            beside: what else is trained by this step.

        Returns:
            No terms if something was not finite and the step was skipped, with the batches that waited for it.
        """
        self.watch.begin(self.net, self.objective)
        self.waiting += 1
        due = last or self.waiting == self.config.accumulate
        with self._alone(due):
            output = self.forward(inputs)
            terms: Mapping[str, Tensor] = self.objective(output, target, at / self.optim.epochs)
            shared = beside.terms if beside else {}
            if not self.watch.good(f"epoch {at:.3f}", {**terms, **shared}):
                return self._forget(beside)
            loss = sum(terms.values(), torch.zeros((), device=self.device))
            loss = sum(shared.values(), loss * distributed.world()) / distributed.world() / self.config.accumulate
            # the parallel network takes the mean over the ranks: everything else here adds up
            self.scaler.scale(loss * (distributed.world() if self.parallel is not None else 1)).backward()
        if due and not self._update(at, beside):
            return self._forget(beside)
        self.watch.end()
        return terms

    def _forget(self, beside: Beside | None) -> Mapping[str, Tensor]:
        for optimiser in self._optimisers(beside):
            optimiser.zero_grad(set_to_none=True)
        self.waiting = 0
        return {}

    def _optimisers(self, beside: Beside | None) -> list[torch.optim.Optimizer]:
        return [self.optimiser, *([beside.optimiser] if beside else [])]

    def _alone(self, due: bool) -> AbstractContextManager[None]:
        """Gradients of the ranks are added once for all accumulated batches."""
        if self.parallel is not None and not due:
            return self.parallel.no_sync()
        return nullcontext()

    def _update(self, at: float, beside: Beside | None) -> bool:
        """A step of the optimisers, unless the gradient is not finite."""
        weights, others = list(self.net.parameters()), list(beside.parameters()) if beside else []
        if self.parallel is None:
            distributed.sum_gradients([*weights, *others])
        if self.waiting < self.config.accumulate:  # the end of an epoch: fewer batches than were divided by
            torch._foreach_mul_(_gradients([*weights, *others]), self.config.accumulate / self.waiting)
        set_rate(self.optimiser, self.optim.lr_at(at), self.optim.warming(at))
        if self.config.clip > 0:
            self.scaler.unscale_(self.optimiser)
            norm = nn.utils.clip_grad_norm_(weights, self.config.clip)
        else:
            norm = nn.utils.get_total_norm(_gradients(weights))
        norms = {"gradient": norm}
        norms |= {"gradient of the logits": nn.utils.get_total_norm(_gradients(others))} if others else {}
        # a scaler finds and skips such gradients itself
        if not self.scaler.is_enabled() and not self.watch.good(f"epoch {at:.3f}", norms):
            return False
        for optimiser in self._optimisers(beside):
            self.scaler.step(optimiser)
            optimiser.zero_grad(set_to_none=True)
        self.scaler.update()
        self.waiting = 0
        if self.ema is not None:
            self.ema.follow(self.net)
        return True

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, each with `state_dict` and `load_state_dict`."""
        found: dict[str, Any] = {"net": self.net, "objective": self.objective, "optimiser": self.optimiser}
        found |= {"scaler": self.scaler} if self.scaler.is_enabled() else {}
        return found | ({"ema": self.ema} if self.ema is not None else {})


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]
