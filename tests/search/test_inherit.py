"""How a child takes its tensors from a supernet, whatever way an operation lays them out."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from dnas.errors import UserError
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.nn.reid_net import ReIDNet
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder, inherit
from dnas.space.cost import Cost
from dnas.space.holes import Channels, Shape, Width
from dnas.space.spec import Builder, OneOf, Space, Spec, decisions, fill


@dataclass(frozen=True)
class Scale(Spec):
    """Tokens times a vector (1, 1, C), the channels its third dimension."""

    label = "scale"

    def cost(self, x: Shape) -> Cost:
        return Cost()

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return ScaleModule(x.channels)


class ScaleModule(nn.Module):
    def __init__(self, c: Channels) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1, 1, c.size))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(2).transpose(1, 2) * self.scale).transpose(1, 2).view_as(x)


@dataclass(frozen=True)
class Product(Spec):
    """Two 1x1 projections in one convolution, multiplied; what enters them is a part of its own."""

    before: Spec
    label = "product"

    def cost(self, x: Shape) -> Cost:
        return Cost()

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        return ProductModule(x.channels, self.before.build(x, builder), builder)


class ProductModule(nn.Module):
    def __init__(self, c: Channels, before: nn.Module, builder: Builder) -> None:
        super().__init__()
        self.width, self.before = c.size, before
        self.both = nn.Sequential(nn.Conv2d(c.size, 2 * c.size, 1))
        self.mask = builder.mask(c)

    def inherited(self, name: str, whole: Tensor) -> Tensor | None:
        if not name.startswith("both."):
            return None
        both = torch.cat([part[: self.width] for part in whole.chunk(2)])
        return both[:, : self.width] if whole.dim() > 1 else both

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.both(self.before(x)).chunk(2, 1)
        product: Tensor = self.mask(one * other)
        return product


INNER = OneOf("inner", {"none": Skip(), "scale": Scale()})
OPTIONS = {"none": Skip(), "scale": Scale(), "product": Product(INNER)}
SPEC = Chain((ConvNormAct(Width("w", (3, 4, 8)), 5), OneOf("op", OPTIONS), ConvNormAct(12, 1)))
SPACE = Space("laid out otherwise", SPEC, 9, 7)


@pytest.mark.parametrize("width", [3, 4, 8])
@pytest.mark.parametrize("op", OPTIONS)
def test_a_child_is_its_part_of_the_supernet(width: int, op: str) -> None:
    relaxation = Relaxation(decisions(SPACE.spec))
    net = ReIDNet(SPACE.spec, SPACE.input, 5, SupernetBuilder(relaxation.draw)).double()
    choices = {"w": width, "op": op, "inner": "scale"}
    child = ReIDNet(fill(SPACE.spec, choices), SPACE.input, 5).double()
    inherit(child, net, choices)
    relaxation.fix(choices)
    x = torch.randn(4, 3, 9, 7, dtype=torch.float64)
    for training in (False, True):
        torch.testing.assert_close(net.train(training)(x), child.train(training)(x), rtol=0, atol=1e-10)


def test_a_space_may_end_in_an_open_width() -> None:
    """The neck's running statistics come from every draw: its masked channels must still be zero."""
    space = Space("open", Chain((ConvNormAct(16, 3, 2), ConvNormAct(Width("w", (4, 6, 8))))), 9, 7)
    relaxation = Relaxation(decisions(space.spec))
    net = ReIDNet(space.spec, space.input, 5, SupernetBuilder(relaxation.draw)).double().train()
    nn.init.normal_(net.neck.bias)
    x = torch.randn(4, 3, 9, 7, dtype=torch.float64)
    for width in (8, 6, 8):
        relaxation.fix({"w": width})
        net(x)
    for width in (4, 6, 8):
        relaxation.fix({"w": width})
        child = ReIDNet(fill(space.spec, {"w": width}), space.input, 5).double()
        inherit(child, net, {"w": width})
        for training in (False, True):
            found, expected = net.train(training)(x), child.train(training)(x)
            torch.testing.assert_close(found.logits_BC, expected.logits_BC, rtol=0, atol=1e-10)
            embedding_BD = expected.embedding_BD
            torch.testing.assert_close(found.embedding_BD[:, :width], embedding_BD, rtol=0, atol=1e-10)
            assert not bool(found.embedding_BD[:, width:].any())


def test_only_kernels_are_cut_at_their_centre() -> None:
    wide, narrow = nn.Conv2d(4, 6, 5, bias=False), nn.Conv2d(3, 2, 3, bias=False)
    inherit(narrow, wide, {})
    assert torch.equal(narrow.weight, wide.weight[:2, :3, 1:4, 1:4])


def test_a_part_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScaleModule, "inherited", lambda module, name, whole: whole[..., :1], raising=False)
    with pytest.raises(
        UserError, match=r"ScaleModule: inherited tensor 'scale': found \(1, 1, 1\), expected \(1, 1, 3\)"
    ):
        inherit(ScaleModule(Channels.of(3)), ScaleModule(Channels.of(8)), {})
