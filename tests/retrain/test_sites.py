"""What is shown of attention: where positions look, and what is selected, in a map and among patches."""

import pytest
import torch
from torch import nn

from dnas.nn.attention import attention
from dnas.nn.backbones import backbone
from dnas.nn.reid_net import ReIDNet
from dnas.nn.sites import sites_of
from dnas.space.spec import image
from retrain.sites import channel_use, entering, position_maps, selection_by_place


@pytest.mark.parametrize(("name", "grid"), [("resnet18", (4, 2)), ("vit_tiny_16", (4, 2))])
def test_selection_by_place(name: str, grid: tuple[int, int]) -> None:
    """The last site: the place whose tokens are opened by hand is the one that is open."""
    spec = backbone(name, 0.125, small=True, attention=lambda stage: attention("selective"))
    net = ReIDNet(spec, image(32, 16), 3).eval()
    site = sites_of(net)[-1]
    selection = site.module.selection
    assert selection is not None
    channels = len(selection.logits.bias)
    nn.init.constant_(selection.logits.bias, -1.0)

    theta = selection.theta

    def one_place(x_BNC: torch.Tensor) -> torch.Tensor:
        position = 5 + (x_BNC.shape[1] > 8)  # after the class token
        opened = theta(x_BNC)
        opened[:, position, : channels // 2] = 1.0
        return opened

    selection.theta = one_place  # type: ignore[method-assign]
    with torch.no_grad(), entering([site.module]) as given:
        net.embed(torch.randn(2, 3, 32, 16))
    places = selection_by_place(net, site, given[0][0])
    assert places is not None
    assert places.shape == (2, *grid)
    expected = torch.zeros(2, *grid)
    expected[:, 2, 1] = (channels // 2) / channels
    torch.testing.assert_close(places, expected)
    gate = backbone("resnet18", 0.125, small=True, attention=lambda stage: attention("se"))
    net = ReIDNet(gate, image(32, 16), 3)
    assert selection_by_place(net, sites_of(net)[0], torch.randn(2, 8, 4, 2)) is None


def test_where_a_position_looks() -> None:
    """The row of the attention of one position, in plain loops; on the patches of a transformer as on a map."""
    for name in ("resnet18", "vit_tiny_16"):
        spec = backbone(name, 0.125, small=True, attention=lambda stage: attention("non_local"))
        net = ReIDNet(spec, image(48, 16), 3).eval()
        site = next(site for site in sites_of(net) if "non-local" in site.name)
        with torch.no_grad(), entering([site.module]) as given:
            net.embed(torch.randn(2, 3, 48, 16))
        x = given[0][0]
        h, w = x.shape[2:]
        found = position_maps(net, site, x, (0.5, 0.99))
        assert found.shape == (2, h, w)
        assert site.module.looking(x, (0.5, 0.99)) == (h // 2, w - 1)
        for b in range(2):
            one = x[b, :, h // 2, w - 1]
            products = torch.stack([one @ x[b, :, row, col] for row in range(h) for col in range(w)])
            expected = (products / x.shape[1] ** 0.5).softmax(0)
            torch.testing.assert_close(found[b].flatten(), expected)
        assert channel_use(site, x) is None
