"""A search space that starts from published weights uses them: without any attention it is the backbone itself."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dnas.nn.backbones import backbone
from dnas.nn.pretrained import BackbonePart, load_weights
from dnas.nn.reid_net import ReIDNet
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder
from dnas.space.spec import decisions, image
from search_spaces.attention_sites import attention_sites


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "vit_tiny_16"])
def test_without_attention_the_supernet_embeds_like_the_backbone(name: str, tmp_path: Path) -> None:
    cells = ("none", "selective") if name.startswith("vit") else ("none", "dcs", "se", "selective")
    space = attention_sites("space", name, cells=cells).resized(64, 64)
    plain = ReIDNet(backbone(name), image(64, 64), 3)
    for module in plain.modules():  # published networks have statistics of their own
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    state = {n: v for part in plain.modules() if isinstance(part, BackbonePart) for n, v in part.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    relaxation = Relaxation(decisions(space.spec))
    net = ReIDNet(space.spec, space.input, 3, SupernetBuilder(relaxation.draw))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    load_weights(net, tmp_path / "w.pth")
    relaxation.fix(dict.fromkeys(decisions(space.spec), "none"))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.eval().raw(x), plain.eval().raw(x), atol=1e-5, rtol=1e-5)
        net.load_state_dict(before)
        assert float((net.raw(x) - plain.raw(x)).abs().max()) > 1e-3  # it is the weights that make them equal
