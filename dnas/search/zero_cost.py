"""NASWOT, a score of a network that was never trained: how differently its activations answer to different images.

"Neural Architecture Search without Training" (Mellor et al., arXiv 2006.04647). Shapes: B images, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ACTIVATIONS = frozenset({F.relu, F.relu6, F.leaky_relu, F.prelu, F.hardswish, F.silu, F.gelu})
"""A unit is active where these put out something above zero."""


class _Activity(TorchFunctionMode):
    """Counts, for every pair of images, the units that are active for both or for neither, (B, B)."""

    def __init__(self) -> None:
        super().__init__()
        self.units, self.kernel_BB = 0, torch.zeros(())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in ACTIVATIONS:
            code_BU = (output > 0).flatten(1).float() * 2 - 1
            self.units += code_BU.shape[1]
            self.kernel_BB = self.kernel_BB + (code_BU @ code_BU.T + code_BU.shape[1]).double() / 2
        return output


@torch.no_grad()
def naswot(net: nn.Module, images: Tensor) -> float:
    """The log determinant of how many units of the network agree on each pair of images.

    Args:
        net: untrained, in training mode: its batch norms use the statistics of these images.
        images: (B, C, H, W).

    Returns:
        -inf where two images, or all of them, light up the same units; nan for a network without activations.
    """
    with _Activity() as activity:
        net(images)
    if not activity.units:
        return float("nan")
    sign, value = torch.linalg.slogdet(activity.kernel_BB)
    return float(value) if float(sign) > 0 else -float("inf")
