"""Options that share their weights: inverted residuals that differ in kernel and expansion only.

One block of the largest kernel and expansion serves all of them: an option uses the centre of the depthwise kernels
and the leading expanded channels (as in Once-for-all, arXiv 1908.09791, and BigNAS, arXiv 2003.11142). Apart, each of
K options is trained in one of K steps; shared, in every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dnas.nn.inverted_residual import InvertedResidual, InvertedResidualModule
from dnas.run.distributed import batch_norm
from dnas.search.relaxation import Draw
from dnas.space.holes import Channels
from dnas.space.spec import Builder, OneOf, Spec


def can_share(options: Mapping[str, Spec]) -> bool:
    """Whether all options are inverted residuals with an expansion that agree in everything but it and the kernel."""
    blocks = [option for option in options.values() if isinstance(option, InvertedResidual) and option.expand > 1]
    return len(blocks) == len(options) and len({replace(block, kernel=1, expand=2) for block in blocks}) == 1


class SharedInvertedResidual(InvertedResidualModule):
    """x (B, C, H, W) -> what the drawn option makes of it, or the weighted sum of all."""

    def __init__(self, one_of: OneOf, c_in: Channels, builder: Builder, draw: Draw) -> None:
        blocks = [option for option in one_of.options.values() if isinstance(option, InvertedResidual)]
        largest = replace(
            blocks[0], kernel=max(block.kernel for block in blocks), expand=max(block.expand for block in blocks)
        )
        super().__init__(largest, c_in, builder)
        self.key, self.blocks, self.c_in, self.draw = one_of.key, blocks, c_in, draw

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.draw.combine(self.key, lambda k: self.option(self.blocks[k], x_BCHW), len(self.blocks))

    def option(self, block: InvertedResidual, x_BCHW: Tensor) -> Tensor:
        """The block with the centre of the kernels and the leading expanded channels."""
        expand, depthwise, project = self.expand.weight, self.depthwise.weight, self.project.weight
        assert isinstance(expand, Tensor)
        c_mid = self.c_in * block.expand
        n, margin = c_mid.size, (depthwise.shape[2] - block.kernel) // 2
        kernels = depthwise[:n, :, margin : margin + block.kernel, margin : margin + block.kernel]
        y: Tensor = F.hardswish(self._norm(self.norm_expand, F.conv2d(x_BCHW, expand[:n]), c_mid))
        y = F.conv2d(y, kernels, None, block.stride, block.kernel // 2, groups=n)
        y = F.hardswish(self._norm(self.norm_depthwise, y, c_mid))
        y = self.norm_project(F.conv2d(y, project[:, :n]))
        return x_BCHW + y if self.residual else y

    def _norm(self, norm: nn.Module, y: Tensor, c: Channels) -> Tensor:
        """The leading channels of a batch norm, masked where the width is open."""
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain_C, bias_C = norm.weight[: c.size], norm.bias[: c.size]
        if not c.closed:
            mask_C = self.draw.mask(c).to(gain_C.dtype)
            gain_C, bias_C = gain_C * mask_C, bias_C * mask_C
        mean_C, var_C = norm.running_mean[: c.size], norm.running_var[: c.size]  # views: updated in place
        share = self.draw.share(norm.momentum)
        return batch_norm(y, mean_C, var_C, gain_C, bias_C, norm.training, share, norm.eps)
