"""Selective attention against its formula, and what a selection that is alive must hold to."""

import pytest
import torch
from torch import Tensor, nn

from dnas.nn.backbones import backbone
from dnas.nn.builder import PlainBuilder
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.reid_net import ReIDNet
from dnas.nn.selective_attention import (
    LEAST,
    LIMIT,
    LimitedSelection,
    SelectiveAttention,
    SelectiveAttentionModule,
    UnselectiveAttention,
)
from dnas.run.schedules import OptimConfig, make_optimiser
from dnas.space.holes import Channels, Shape
from dnas.space.spec import image

X = Shape(Channels.of(6), 4, 3)


def module(spec: SelectiveAttention | None = None) -> SelectiveAttentionModule:
    built = (spec or SelectiveAttention()).build(X, PlainBuilder())
    assert isinstance(built, SelectiveAttentionModule)
    return built.double()


def test_equals_the_formula() -> None:
    torch.manual_seed(0)
    attention = module().eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    shares = []
    for image_, found in zip(x, attention(x), strict=True):
        tokens = image_.reshape(6, 12).T
        z = tokens * ((1 + 1e-6) / (tokens.square().mean() + 1e-6)).sqrt()
        logits = attention.select.logits
        theta = z @ logits.weight.T / 6**0.5 + logits.bias
        chosen = z * (theta > 0)
        chosen = chosen * ((1 + LEAST) / (chosen.square().mean() + LEAST)).sqrt()
        shares.append(float((theta > 0).double().mean()))
        affinity = attention.log_scale.exp() * chosen @ chosen.T / 6
        y = (affinity.softmax(1) @ tokens).T.reshape(6, 4, 3)
        y = y / (1 + attention.norm.eps) ** 0.5 * attention.norm.weight[:, None, None]
        torch.testing.assert_close(found, image_ + y + attention.norm.bias[:, None, None])
    assert all(0.1 < share < 0.9 for share in shares)


def test_everything_selected_is_the_control_and_at_the_start_everything_is() -> None:
    for stride in (1, 2):
        attention = module(SelectiveAttention(stride=stride)).eval()
        control = UnselectiveAttention(stride=stride).build(X, PlainBuilder()).double().eval()
        x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
        torch.testing.assert_close(attention(x), control(x), rtol=0, atol=1e-5)
        assert not torch.allclose(attention.train()(x), control.train()(x), atol=1e-3)  # noise closes some


def test_the_scale_of_the_input_does_not_matter_to_what_is_attended() -> None:
    attention = module().eval()
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(attention.affinity(x), attention.affinity(100 * x), atol=1e-4, rtol=0)


def test_a_token_with_every_channel_closed_looks_at_all_positions_alike() -> None:
    """And gradients stay finite, of a map that is zero too."""
    attention = module().train()
    attention.select.noise = lambda like: torch.full_like(like, -100.0)  # type: ignore[method-assign]
    for x in (torch.randn(2, 6, 4, 3, dtype=torch.float64), torch.zeros(2, 6, 4, 3, dtype=torch.float64)):
        x.requires_grad_()
        torch.testing.assert_close(attention.affinity(x), torch.full((2, 12, 12), 1 / 12, dtype=torch.float64))
        attention(x).square().sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in (x, *attention.parameters()) if p.grad is not None)


@pytest.mark.parametrize("start", [-20.0, -LIMIT - 0.1])
def test_closing_everything_is_not_absorbing(start: float) -> None:
    """Theta far below zero, noise fed: every channel still gets a gradient, and one that is wanted opens again."""
    torch.manual_seed(0)
    attention = SelectiveAttention(start=start).build(X, PlainBuilder())
    assert isinstance(attention, SelectiveAttentionModule)
    attention.train()
    drawn = torch.Generator().manual_seed(0)
    attention.select.noise = lambda like: torch.logit(torch.rand(like.shape, generator=drawn), eps=1e-6)  # type: ignore[method-assign]
    x = torch.randn(16, 6, 4, 3)
    bias = attention.select.logits.bias
    gradient = torch.zeros(6)
    for _ in range(20):
        attention.zero_grad()
        (attention(x) - x).square().sum().backward()
        assert bias.grad is not None
        gradient += bias.grad.abs()
    assert bool((gradient > 0).all())
    old = DCSAttention().build(X, PlainBuilder()).train()  # where it is absorbing, the same shows
    nn.init.constant_(old.select.logits.bias, -20.0)  # type: ignore[union-attr,arg-type]
    nn.init.ones_(old.norm.weight)  # type: ignore[arg-type]
    (old(x) - x).square().sum().backward()
    assert not bool(old.select.logits.bias.grad.abs().max() > 1e-12)  # type: ignore[union-attr]


def test_theta_is_limited_and_its_gradient_passes() -> None:
    selection = LimitedSelection(Channels.of(6), PlainBuilder(), start=0.0)
    with torch.no_grad():
        selection.logits.bias.copy_(torch.tensor([-9.0, -3, -1, 1, 3, 9]))
    theta = selection.theta(torch.zeros(1, 1, 6))
    assert theta[0, 0].tolist() == pytest.approx([-3, -3, -1, 1, 3, 3])
    theta.sum().backward()
    assert selection.logits.bias.grad is not None
    assert selection.logits.bias.grad.tolist() == [1.0] * 6


def test_inside_a_transformer_everything_is_open_at_the_start_and_noise_closes_little() -> None:
    spec = backbone("vit_tiny_16", 0.25, small=True, attention=lambda stage: SelectiveAttention())
    plain = ReIDNet(backbone("vit_tiny_16", 0.25, small=True), image(32, 16), 3).eval()
    net = ReIDNet(spec, image(32, 16), 3).eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(4, 3, 32, 16)
    with torch.no_grad():
        torch.testing.assert_close(net.embed(x), plain.embed(x), rtol=0, atol=1e-6)
        shares: list[float] = []
        for module_ in net.modules():
            if isinstance(module_, LimitedSelection):
                module_.register_forward_hook(lambda _, given, mask: shares.append(float(mask.mean())))
        net.train()(x)
    assert len(shares) == 4
    assert all(0.9 < share < 0.99 for share in shares)


# A planted task. A query position must find the one other position that carries its code, among positions whose other
# channels are strong noise: channels 0 to 3 are the code, 4 to 11 the noise, and the value is read where it looks.
CODE, NOISE, POSITIONS, PAIRS = 4, 8, 8, 4


def planted(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Maps (B, 14, 8, 1) and what each of the first four positions should read: the sign at its partner's."""
    partner_B4 = torch.rand(count, PAIRS, generator=generator).argsort(1)
    codes_44 = 3 * torch.eye(CODE)
    x = torch.zeros(count, POSITIONS, CODE + NOISE + 2)
    x[:, :PAIRS, :CODE] = codes_44
    x[:, PAIRS:, :CODE] = codes_44[partner_B4]
    x[..., CODE : CODE + NOISE] = 2 * torch.randn(count, POSITIONS, NOISE, generator=generator)
    sign_B4 = torch.randint(0, 2, (count, PAIRS), generator=generator).float() * 2 - 1
    x[:, PAIRS:, -1] = sign_B4
    target_B4 = sign_B4.gather(1, partner_B4.argsort(1))
    return x.transpose(1, 2)[..., None], target_B4


class Reader(nn.Module):
    """The cell, and a linear reading of the value's channel at the first four positions."""

    def __init__(self) -> None:
        super().__init__()
        shape = Shape(Channels.of(CODE + NOISE + 2), POSITIONS, 1)
        self.cell = SelectiveAttention(scale=8.0).build(shape, PlainBuilder())
        self.read = nn.Conv2d(CODE + NOISE + 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.read(self.cell(x))
        return out[:, 0, :PAIRS, 0]


def accuracy(reader: Reader, x: Tensor, target: Tensor, mask_C: Tensor | None = None) -> float:
    selection = reader.cell.select
    assert isinstance(selection, LimitedSelection)
    hook = None
    if mask_C is not None:
        hook = selection.register_forward_hook(lambda module, given, out: mask_C.expand_as(out))
    with torch.no_grad():
        found = float(((reader.eval()(x) > 0) == (target > 0)).float().mean())
    if hook is not None:
        hook.remove()
    return found


def learn(seed: int, steps: int = 120) -> Reader:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    reader = Reader().train()
    optimiser = make_optimiser(reader, OptimConfig(lr=0.03, weight_decay=0, selection_lr=3), 1)
    for _ in range(steps):
        x, target = planted(64, generator)
        optimiser.zero_grad()
        nn.functional.soft_margin_loss(reader(x), target).backward()
        optimiser.step()
    return reader


def test_channels_of_noise_close_and_informative_ones_stay_open() -> None:
    """In at least 9 of 10 seeds; and the learned masks read better than none and than random ones of equal share."""
    good = better = 0
    x, target = planted(512, torch.Generator().manual_seed(99))
    for seed in range(10):
        reader = learn(seed)
        with torch.no_grad():
            reader.eval()(x)
            z = reader.cell.tokens(x[..., 0].transpose(1, 2))  # type: ignore[operator]
            open_C = (reader.cell.select.theta(z) > 0).float().mean((0, 1))  # type: ignore[union-attr,operator]
        good += bool(open_C[:CODE].min() > 0.5 > open_C[CODE : CODE + NOISE].max())
        learned = accuracy(reader, x, target)
        everything = accuracy(reader, x, target, torch.ones(len(open_C)))
        shuffled = open_C.round()[torch.randperm(len(open_C), generator=torch.Generator().manual_seed(seed))]
        other = accuracy(reader, x, target, shuffled)
        better += learned > max(everything, other)
    assert good >= 9
    assert better >= 9
