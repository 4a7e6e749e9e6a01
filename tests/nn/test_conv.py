"""The strided 1x1 convolution that is safe to train with few channels."""

import pytest
import torch
from torch.nn import functional as F

from dnas.nn.conv import StridedPointwise


@pytest.mark.parametrize("channels", [8, 12, 20])
def test_a_strided_pointwise_convolution_and_its_gradients(channels: int) -> None:
    """At 12 channels of 96 x 48 positions torch's own ended the process."""
    layer = StridedPointwise(channels, 24, 2).to(memory_format=torch.channels_last)
    x = torch.randn(4, channels, 96, 48).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    weight, z = layer.weight.detach().double().requires_grad_(), x.detach().double().contiguous().requires_grad_()
    expected = F.conv2d(z, weight, stride=2)
    expected.square().sum().backward()
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    for found, wanted in ((layer.weight.grad, weight.grad), (x.grad, z.grad)):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-3)  # type: ignore[union-attr]
