"""Running means of scalar tensors over an epoch, without waiting for the device before the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dnas.errors import UserError


class Averages:
    """Sums on the device; `means` reads them once."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach()
            self.sums[name] = self.sums[name].to(value.device) + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])

    def means(self) -> dict[str, float]:
        """The means so far.

        Raises:
            UserError: a value was not finite.
        """
        found = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        for name, value in found.items():
            if not math.isfinite(value):
                raise UserError(f"training has diverged: '{name}' is {value} (a smaller optim.lr may help)")
        return found
