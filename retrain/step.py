"""One step of training: precision, accumulated gradients, clipping, moving averages, several processes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dnas.errors import UserError
from dnas.loss.objective import Objective
from dnas.nn.reid_net import Output, ReIDNet
from dnas.run import distributed
from dnas.run.finite import Watch
from dnas.run.parameters import set_rate
from dnas.run.schedules import OptimConfig, make_optimiser
from retrain.average import MovingAverage
from retrain.config import TrainConfig

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """The network with everything that changes it."""

    def __init__(self, net: ReIDNet, objective: Objective, optim: OptimConfig, config: TrainConfig) -> None:
        self.config, self.optim, self.net, self.objective = config, optim, net, objective
        self.device = next(net.parameters()).device
        if config.amp == "fp16" and self.device.type != "cuda":
            raise UserError(f"train.amp: found fp16 on {self.device.type}, allowed: none, bf16 (fp16 needs cuda)")
        self.optimiser = make_optimiser(net, optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.ema = MovingAverage(net, config.ema) if config.ema else None
        self.parallel: DistributedDataParallel | None = None
        if distributed.active():
            ids = [self.device] if self.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(net, ids, broadcast_buffers=False)
        self.run: nn.Module = self.parallel or net
        if config.compile:
            self.run = torch.compile(self.run)  # type: ignore[assignment]
        self.waiting = 0
        self.watch = Watch(optim.on_nonfinite)

    @property
    def final(self) -> ReIDNet:
        """What is evaluated: the moving average, if there is one."""
        return self.ema.net if self.ema is not None else self.net

    def __call__(self, inputs: Tensor, labels: Tensor, at: float, last: bool) -> dict[str, Tensor]:
        """Forward, backward, and, if enough batches have come, a step of the optimiser. Returns the loss terms.

        Args:
            at: epochs done so far, fractions included.
            last: the last batch of its epoch: what has come is enough.

        Returns:
            No terms if something was not finite and the step was skipped, with the batches that waited for it.
        """
        self.watch.begin(self.net, self.objective)
        self.waiting += 1
        due = last or self.waiting == self.config.accumulate
        with self._alone(due):
            with torch.autocast(self.device.type, HALF.get(self.config.amp), enabled=self.config.amp != "none"):
                output: Output = self.run(inputs)
            terms: dict[str, Tensor] = self.objective(output, labels, at / self.optim.epochs)
            if not self.watch.good(f"epoch {at:.3f}", terms):
                return self._forget()
            loss = sum(terms.values(), torch.zeros((), device=self.device)) / self.config.accumulate
            self.scaler.scale(loss * distributed.world()).backward()
        if due and not self._update(at):
            return self._forget()
        self.watch.end()
        return terms

    def _forget(self) -> dict[str, Tensor]:
        self.optimiser.zero_grad(set_to_none=True)
        self.waiting = 0
        return {}

    def _alone(self, due: bool) -> AbstractContextManager[None]:
        """Gradients of the ranks are added once for all accumulated batches."""
        if self.parallel is not None and not due:
            return self.parallel.no_sync()
        return nullcontext()

    def _update(self, at: float) -> bool:
        """A step of the optimiser, unless the gradient is not finite."""
        if self.waiting < self.config.accumulate:  # the end of an epoch: fewer batches than were divided by
            for parameter in self.net.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.config.accumulate / self.waiting)
        set_rate(self.optimiser, self.optim.lr_at(at))
        if self.config.clip > 0:
            self.scaler.unscale_(self.optimiser)
            norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self.net.parameters() if p.grad is not None])
        # a scaler finds and skips such gradients itself
        if not self.scaler.is_enabled() and not self.watch.good(f"epoch {at:.3f}", {"gradient": norm}):
            return False
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.waiting = 0
        if self.ema is not None:
            self.ema.follow(self.net)
        return True

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, each with `state_dict` and `load_state_dict`."""
        found: dict[str, Any] = {"net": self.net, "objective": self.objective, "optimiser": self.optimiser}
        found |= {"scaler": self.scaler} if self.scaler.is_enabled() else {}
        return found | ({"ema": self.ema} if self.ema is not None else {})
