"""What a report says of channel selections, against plain loops; masks put in the place of the learned ones."""

import pytest
import torch
from torch import nn

from dnas.data.images import Images
from dnas.eval.selection import (
    other_masks,
    replaced_masks,
    selection_report,
    selection_use,
    selection_warnings,
    selections,
)
from dnas.nn.attention import attention
from dnas.nn.backbones import backbone
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.reid_net import ReIDNet
from dnas.nn.selective_attention import SelectiveAttention
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder
from dnas.space.holes import Width
from dnas.space.spec import decisions, image

SIZE = (16, 8)


def pictures(count: int = 6) -> Images:
    pixels = torch.randint(0, 256, (count, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(count)
    return Images(pixels, ids, ids % 2, ids.numpy(), ids.numpy())


def network() -> ReIDNet:
    torch.manual_seed(0)
    net = ReIDNet(Chain((ConvNormAct(6, 3, 2), SelectiveAttention(start=0.0), ConvNormAct(4, 1))), image(*SIZE), 2)
    for module in selections(net).values():
        nn.init.normal_(module.select.logits.weight, std=2.0)  # type: ignore[union-attr,arg-type]
    return net


def test_shares_and_perplexity_are_those_of_loops() -> None:
    net, images = network().eval(), pictures()
    (name,) = selections(net)
    module = selections(net)[name]
    entered: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    with torch.no_grad():
        net.embed(torch.cat(list(images.batches(6, torch.device("cpu")))))
    hook.remove()
    tokens_BNC = entered[0].permute(0, 2, 3, 1).flatten(1, 2)
    theta_BNC = module.select.theta(module.tokens(tokens_BNC)).detach()  # type: ignore[union-attr,operator]
    opened = [[[float(value) > 0 for value in token] for token in img] for img in theta_BNC]
    by_channel = [[img[n][c] for img in opened for n in range(len(img))] for c in range(6)]
    rows = module.affinity(entered[0]).detach().flatten(0, 1)  # type: ignore[operator]
    perplexity = [2 ** -sum(float(a) * float(a.log2()) for a in row if a > 0) / len(row) for row in rows]
    found = selection_use(net.train(), images)[name]
    assert net.training
    assert found.share == pytest.approx(sum(map(sum, by_channel)) / sum(map(len, by_channel)))
    assert found.depending == pytest.approx(sum(any(row) and not all(row) for row in by_channel) / 6)
    assert found.perplexity == pytest.approx(sum(perplexity) / len(perplexity), rel=1e-4)
    assert 0 < found.share < 1
    assert found.depending > 0


def test_channels_of_an_open_width_that_are_not_in_use_are_left_out() -> None:
    width = Width("w", (2, 6))
    spec = Chain((ConvNormAct(width, 3, 2), SelectiveAttention(), ConvNormAct(4, 1)))
    relaxation = Relaxation(decisions(spec))
    net = ReIDNet(spec, image(*SIZE), 2, SupernetBuilder(relaxation.draw))
    (name,) = selections(net)
    with torch.no_grad():
        selections(net)[name].select.logits.bias.copy_(torch.tensor([1.0, -1, -1, -1, -1, -1]))  # type: ignore[union-attr]
    for channels, share in ((2, 1 / 2), (6, 1 / 6)):
        relaxation.fix({"w": channels})
        assert selection_report(net, pictures())[name]["share"] == pytest.approx(share)


def test_all_or_none_is_said_with_the_site() -> None:
    report = {"a": {"share": 1.0}, "b": {"share": 0.3}, "c": {"share": 0.0}, "d": {"share": 1.0}}
    assert selection_warnings(report) == [
        "all of the channels selected: whatever the image, at a, d",
        "none of the channels selected: whatever the image, at c",
    ]
    assert selection_warnings({"b": {"share": 0.3}}, reach=0.1) == []
    (far,), (near,) = (selection_warnings({"a": report["a"]}, reach) for reach in (1.5, 0.126))
    assert far == "all of the channels selected: whatever the image, at a"
    assert near == f"{far} (this run moves a bias of 1 or more by about 0.13: raise optim.selection_lr)"


def test_replaced_masks_are_used_and_put_back() -> None:
    net, images = network().eval(), pictures()
    use = selection_use(net, images)
    (name,) = use
    x = torch.cat(list(images.batches(6, torch.device("cpu"))))
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        own = net.embed(x)
        for kind, replace in other_masks(use).items():

            def keep(site: str, mask: torch.Tensor, kind: str = kind, replace=replace) -> torch.Tensor:  # type: ignore[no-untyped-def]
                seen[kind], seen["own"] = replace(site, mask), mask
                return seen[kind]

            with replaced_masks(net, keep):
                assert not torch.allclose(net.embed(x), own), kind
        assert torch.equal(net.embed(x), own)
    assert bool((seen["open"] == 1).all())
    assert torch.equal(seen["other image"][1], seen["own"][0])
    torch.testing.assert_close(seen["mean"][3, 5].double(), use[name].by_channel)
    assert float(seen["random"].mean()) == pytest.approx(use[name].share, abs=0.1)
    assert bool((seen["random"] == seen["random"][:1]).all())


def test_a_transformer_and_a_network_without_selection() -> None:
    spec = backbone("vit_tiny_16", 0.25, small=True, attention=lambda stage: SelectiveAttention())
    found = selection_report(ReIDNet(spec, image(*SIZE), 2), pictures())
    assert len(found) == 4
    assert {use["share"] for use in found.values()} == {1.0}
    plain = backbone("resnet18", 0.125, small=True, attention=lambda stage: attention("se"))
    assert selection_report(ReIDNet(plain, image(*SIZE), 2), pictures()) == {}
