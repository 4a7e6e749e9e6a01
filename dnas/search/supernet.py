"""The supernet: the builder that turns holes into what reads the current draw, and weight inheritance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dnas.errors import UserError
from dnas.nn.builder import PlainBuilder
from dnas.run.distributed import batch_norm
from dnas.search.elastic import SharedInvertedResidual, can_share
from dnas.search.relaxation import Draw
from dnas.search.shared_blocks import SharedTransformerStage, can_share_blocks
from dnas.space.holes import Channels, Shape
from dnas.space.spec import Choices, OneOf, Pair


class SupernetBuilder(PlainBuilder):
    """Builds open descriptions over a draw.

    Args:
        share: let options share weights where they can (`dnas.search.elastic`, `dnas.search.shared_blocks`).
    """

    def __init__(self, draw: Draw, share: bool = True) -> None:
        self.draw, self.share = draw, share

    def norm(self, c: Channels) -> nn.BatchNorm2d:
        return DrawnBatchNorm2d(c, self.draw)

    def vector_norm(self, c: Channels) -> nn.BatchNorm1d:
        return super().vector_norm(c) if c.closed else DrawnBatchNorm1d(c, self.draw)

    def mask(self, c: Channels) -> nn.Module:
        return super().mask(c) if c.closed else ChannelMask(c, self.draw)

    def width(self, c: Channels) -> nn.Module:
        return super().width(c) if c.closed else OpenWidth(c, self.draw)

    def exclude(self, c: Channels) -> nn.Module:
        return super().exclude(c) if c.closed else ExcludeMasked(c, self.draw)

    def sources(self, inputs: OneOf | Pair) -> nn.Module:
        return super().sources(inputs) if isinstance(inputs, Pair) else OpenSources(inputs, self.draw)

    def choice(self, one_of: OneOf, x: Shape) -> nn.Module:
        one_of.out(x)  # options must agree on their output shape
        if self.share and can_share(one_of.options):
            return SharedInvertedResidual(one_of, x.channels, self, self.draw)
        if self.share and can_share_blocks(one_of.options):
            return SharedTransformerStage(one_of, x.channels, self, self.draw)
        return Mixed(one_of, [option.build(x, self) for option in one_of.options.values()], self.draw)


class DrawnBatchNorm(_BatchNorm):
    """Batch norm that keeps its running statistics when it is only tried out, and masks the channels of an open width.

    The mask is folded into gain and bias: no pass over the activations. For the linear outputs this is FBNetV2's mask
    exactly. Before an activation f with f(0) = 0 it is f(mask * y) instead of mask * f(y): the same for a one-hot draw.
    """

    def __init__(self, c: Channels, draw: Draw) -> None:
        super().__init__(c.size)
        self.width, self.draw = c, draw

    def forward(self, input: Tensor) -> Tensor:
        gain_C: Tensor = self.weight
        bias_C: Tensor = self.bias
        if not self.width.closed:
            mask_C = self.draw.mask(self.width).to(gain_C.dtype)
            gain_C, bias_C = gain_C * mask_C, bias_C * mask_C
        assert self.running_mean is not None
        assert self.running_var is not None
        share = self.draw.share(self.momentum)
        return batch_norm(input, self.running_mean, self.running_var, gain_C, bias_C, self.training, share, self.eps)


class DrawnBatchNorm1d(DrawnBatchNorm, nn.BatchNorm1d):
    """Over vectors (B, C)."""


class DrawnBatchNorm2d(DrawnBatchNorm, nn.BatchNorm2d):
    """Over maps (B, C, H, W)."""


class ChannelMask(nn.Module):
    """x (B, C, ...) times the channel mask, a vector that broadcasts."""

    def __init__(self, c: Channels, draw: Draw) -> None:
        super().__init__()
        self.width, self.draw = c, draw

    def forward(self, x: Tensor) -> Tensor:
        return x * self.draw.mask(self.width).to(x.dtype).view(-1, *[1] * (x.dim() - 2))


class ExcludeMasked(nn.Module):
    """Adds the log of the channel mask along dimension `dim`: channels that no option of the draw has are at -inf.

    So a mixture of widths leads from the one to the other without a jump. A one-hot draw has no gradient by it.
    """

    def __init__(self, c: Channels, draw: Draw) -> None:
        super().__init__()
        self.width, self.draw = c, draw

    def forward(self, x: Tensor, dim: int) -> Tensor:
        mask_C = self.draw.mask(self.width)
        kept_C = torch.zeros_like(mask_C).masked_fill(mask_C == 0, -torch.inf)
        log_C = mask_C.clamp(min=torch.finfo(mask_C.dtype).tiny).log()
        part_C = torch.where((mask_C > 0) & (mask_C < 1), log_C, kept_C)
        return x + part_C.to(x.dtype).view(-1, *[1] * (x.dim() - dim - 1))


class OpenWidth(nn.Module):
    """The effective number of channels of the draw, a scalar tensor."""

    def __init__(self, c: Channels, draw: Draw) -> None:
        super().__init__()
        self.width, self.draw = c, draw

    def forward(self) -> Tensor:
        return self.draw.width(self.width)


class OpenSources(nn.Module):
    """The edges that feed a node, added up: those of the drawn pair, or of all pairs, weighted."""

    def __init__(self, inputs: OneOf, draw: Draw) -> None:
        super().__init__()
        self.key, self.draw = inputs.key, draw
        self.pairs = [pair.states for pair in inputs.options.values() if isinstance(pair, Pair)]

    def forward(self, edge: Callable[[int], Tensor]) -> Tensor:
        known: dict[int, Tensor] = {}  # several pairs have an edge in common

        def both(k: int) -> Tensor:
            for state in self.pairs[k]:
                if state not in known:
                    known[state] = edge(state)
            first, *others = (known[state] for state in self.pairs[k])
            return sum(others, first)

        return self.draw.combine(self.key, both, len(self.pairs))


class Mixed(nn.Module):
    """An operation choice: what the draw makes of the options."""

    def __init__(self, one_of: OneOf, operations: list[nn.Module], draw: Draw) -> None:
        super().__init__()
        self.key, self.names, self.draw = one_of.key, tuple(one_of.options), draw
        self.operations = nn.ModuleList(operations)

    def forward(self, x: Tensor) -> Tensor:
        return self.draw.combine(self.key, lambda k: self.operations[k](x), len(self.operations))


def compile_options(supernet: nn.Module) -> None:
    """Let torch.compile make every option of a choice faster, each on its own: which of them run changes."""
    for module in supernet.modules():
        if isinstance(module, Mixed):
            for operation in module.operations:
                operation.compile()


@runtime_checkable
class Sliced(Protocol):
    """A module whose tensors, or those of modules inside it, are laid out in another way than one block of channels."""

    def inherited(self, name: str, whole: Tensor) -> Tensor | None:
        """What this module takes of a wider one's tensor `name` (dots lead inside); none: the leading entries."""


@torch.no_grad()
def inherit(
    child: nn.Module, supernet: nn.Module, choices: Choices, owners: tuple[tuple[Sliced, str], ...] = ()
) -> None:
    """Copy into the child's tensors what they are of the supernet's: the leading entries, the centre of a kernel.

    Only the kernel of a convolution is cut at its centre. Modules that are laid out otherwise say so (`Sliced`).

    Args:
        owners: the modules around `child` that say so, with the child's name in each.
    """
    while isinstance(supernet, Mixed):
        supernet = supernet.operations[supernet.names.index(str(choices[supernet.key]))]
    owners = (*owners, (child, "")) if isinstance(child, Sliced) else owners
    source = dict(supernet.named_parameters(recurse=False)) | dict(supernet.named_buffers(recurse=False))
    for name, tensor in [*child.named_parameters(recurse=False), *child.named_buffers(recurse=False)]:
        said = (owner.inherited(prefix + name, source[name]) for owner, prefix in reversed(owners))
        part = next((part for part in said if part is not None), None)
        part = _leading(child, source[name], tensor.shape) if part is None else part
        if part.shape != tensor.shape:
            found = f"found {tuple(part.shape)}, expected {tuple(tensor.shape)}"
            raise UserError(f"{type(child).__name__}: inherited tensor '{name}': {found}")
        tensor.copy_(part)
    children = dict(supernet.named_children())
    for name, module in child.named_children():
        inherit(module, children[name], choices, tuple((owner, f"{prefix}{name}.") for owner, prefix in owners))


def _leading(module: nn.Module, whole: Tensor, shape: torch.Size) -> Tensor:
    kernel = 2 if isinstance(module, _ConvNd) else len(shape)  # the first dimension that is one of a kernel
    starts = [0 if d < kernel else (whole.shape[d] - shape[d]) // 2 for d in range(len(shape))]
    return whole[tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))]
