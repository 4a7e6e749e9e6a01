"""Attention by the names that people read: of a chain, of a transformer's blocks, of the options of a supernet."""

from dnas.nn.attention import attention, site
from dnas.nn.backbones import backbone
from dnas.nn.chain import Chain
from dnas.nn.conv import ConvNormAct
from dnas.nn.reid_net import ReIDNet
from dnas.nn.sites import sites_of
from dnas.search.relaxation import Relaxation
from dnas.search.supernet import SupernetBuilder
from dnas.space.spec import Spec, decisions, image


def names(spec: Spec) -> list[str]:
    relaxation = Relaxation(decisions(spec))
    network = ReIDNet(spec, image(32, 16), 2, SupernetBuilder(relaxation.draw))
    return [site.name for site in sites_of(network)]


def test_a_site_is_called_by_its_stage_and_what_it_is() -> None:
    fixed = backbone("resnet18", 0.125, small=True, attention=lambda stage: attention("dcs" if stage % 2 else "none"))
    assert names(fixed) == ["stage 1: DCS", "stage 3: DCS"]
    blocks = backbone("vit_tiny_16", 0.125, small=True, attention=lambda stage: attention("selective"))
    assert names(blocks) == [f"stage {n}: block {n}" for n in (1, 2, 3, 4)]
    still_open = backbone(
        "resnet18", 0.125, small=True, attention=lambda stage: site(f"s{stage}", ("none", "se", "dcs"))
    )
    assert names(still_open)[:3] == ["stage 1: SE", "stage 1: DCS", "stage 2: SE"]


def test_those_that_are_called_alike_are_told_apart() -> None:
    cell = attention("dcs")
    found = names(Chain((ConvNormAct(4, 3), Chain((cell, ConvNormAct(4, 3), cell), name="stage"), cell)))
    assert found == ["stage: DCS (1.0)", "stage: DCS (1.2)", "DCS"]
