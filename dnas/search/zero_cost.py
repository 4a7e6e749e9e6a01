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

ACTIVATIONS = frozenset({
    F.relu, F.hardtanh, F.leaky_relu, F.prelu, F.elu, F.hardswish, F.silu, F.mish, F.gelu,
    torch.relu, torch.relu_, Tensor.relu, Tensor.relu_,
})  # fmt: skip
"""A unit is active where these put out something above zero; ReLU6 is a `hardtanh`."""


class _Activity(TorchFunctionMode):
    """Counts, for every pair of images, the units that are active for both or for neither, (B, B)."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel_BB: Tensor | None = None

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
            agree_BB = (code_BU @ code_BU.T + code_BU.shape[1]).double() / 2
            self.kernel_BB = agree_BB if self.kernel_BB is None else self.kernel_BB + agree_BB
        return output


@torch.no_grad()
def naswot(net: nn.Module, images: Tensor) -> float:
    """The log determinant of how many units of the network agree on each pair of images.

    Args:
        net: untrained, in training mode: its batch norms use the statistics of these images.
        images: (B, C, H, W).

    Returns:
        Very little, or -inf, where two images, or all of them, light up the same units; nan for a network without
        activations.
    """
    with _Activity() as activity:
        net(images)
    if activity.kernel_BB is None:
        return float("nan")
    sign, value = torch.linalg.slogdet(activity.kernel_BB)
    return float(value) if float(sign) > 0 else -float("inf")
