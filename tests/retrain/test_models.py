"""Attention on fixed backbones: per stage, and taken over from a search."""

import json
from pathlib import Path
from typing import Any

import pytest

from dnas.errors import UserError
from dnas.nn.attention import ATTENTION, site
from dnas.nn.backbones import backbone
from dnas.space.genotype import Genotype
from dnas.space.graph import graph
from dnas.space.spec import decisions, fill
from retrain.config import RetrainConfig
from retrain.models import attention_cells, attention_sites, pick_model
from search_spaces import SPACES


def config(**settings: Any) -> RetrainConfig:
    return RetrainConfig(**{"data": "d", "out": "o", **settings})


def found(tmp_path: Path, space_name: str, **choices: str) -> str:
    """A genotype with these choices, and the first option everywhere else."""
    space = SPACES[space_name]
    chosen = {key: decision.options[0] for key, decision in decisions(space.spec).items()} | {
        f"{key}.attention": value for key, value in choices.items()
    }
    file = tmp_path / f"{space_name}.json"
    Genotype.of(space, chosen).save(file)
    return str(file)


def test_one_cell_a_stage() -> None:
    name, cells = attention_cells(config(backbone="resnet18", attention="none,dcs,se,none"))
    assert cells == [ATTENTION[cell] for cell in ("none", "dcs", "se", "none")]
    assert pick_model(config(backbone="resnet18", attention=name)).name == "resnet18 + none,dcs,se,none"
    assert attention_cells(config(backbone="resnet18", attention="eca"))[1] == [ATTENTION["eca"]] * 4
    with pytest.raises(UserError, match="attention: found 3 names, allowed: one, or 4 with commas between"):
        pick_model(config(backbone="resnet18", attention="se,se,dcs"))


@pytest.mark.parametrize("backbone", ["resnet18", "osnet_x0_25", "swin_t", "mobilenet_v2"])
def test_a_searched_attention_goes_onto_a_backbone(backbone: str, tmp_path: Path) -> None:
    genotype = found(tmp_path, "fbnetv2_reid", stage1="se", stage2="none", stage3="dcs", stage4="channel")
    model = pick_model(config(genotype=genotype, backbone=backbone))
    assert model.name == f"{backbone} + attention of searched fbnetv2_reid"
    plain = pick_model(config(backbone=backbone, attention="se,none,dcs,channel"))
    assert model.spec == plain.spec
    nodes = graph(model.spec, model.input).nodes(data=True)
    assert sum("DCS" in str(data) for _, data in nodes) == 1


def test_three_stages_leave_the_fourth_alone_and_a_transformer_takes_dcs_inside(tmp_path: Path) -> None:
    three = found(tmp_path, "tiny_reid", stage1="dcs", stage3="dcs")
    assert attention_cells(config(genotype=three, backbone="resnet18"))[1] == [
        ATTENTION[cell] for cell in ("dcs", "none", "dcs", "none")
    ]
    vit = pick_model(config(genotype=three, backbone="vit_tiny_16"))
    assert vit.spec == pick_model(config(backbone="vit_tiny_16", attention="dcs,none,dcs,none")).spec
    back = found(tmp_path, "attention_sites_vit_s_16", stage2="dcs")
    assert attention_cells(config(genotype=back, backbone="resnet18"))[1][1] == ATTENTION["dcs"]


def test_what_a_transformer_was_found_with_goes_back() -> None:
    """Inside its blocks or on its patches, closed or filled."""
    cells = ("se", "dcs", "none", "non_local")
    closed = backbone("vit_tiny_16", attention=lambda stage: ATTENTION[cells[stage - 1]])
    opened = backbone("vit_tiny_16", attention=lambda stage: site(f"stage{stage}.attention", tuple(ATTENTION)))
    filled = fill(opened, {f"stage{n}.attention": cell for n, cell in enumerate(cells, start=1)})
    expected = {stage: ATTENTION[cell] for stage, cell in enumerate(cells, start=1)}
    assert attention_sites(closed) == attention_sites(filled) == expected
    assert all(decision.options[k] != "none" for decision in decisions(opened).values() for k in decision.idle)


def test_what_has_no_place_is_said(tmp_path: Path) -> None:
    cells = found(tmp_path, "cells_reid_tiny")
    with pytest.raises(UserError, match="the space 'cells_reid_tiny' has no attention sites"):
        pick_model(config(genotype=cells, backbone="resnet18"))
    five = tmp_path / "five.py"
    five.write_text(
        "from dnas.nn.attention import site\n"
        "from dnas.nn.chain import Chain\n"
        "from dnas.nn.conv import ConvNormAct\n"
        "from dnas.space.spec import Space\n"
        "stages = tuple(Chain((ConvNormAct(8), site(f'stage{n}.attention', ('none', 'se'))), f'part {n}', stage=n)"
        " for n in range(1, 6))\n"
        "SPACE = Space('five', Chain(stages), 32, 16)\n"
    )
    from search_spaces import load_space

    file = tmp_path / "five.json"
    Genotype.of(load_space(str(five)), {f"stage{n}.attention": "se" for n in range(1, 6)}).save(file)
    with pytest.raises(UserError, match="attention of stage 5 has no place: resnet18 has 4 stages"):
        pick_model(config(genotype=str(file), backbone="resnet18", space=str(five)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give --genotype FILE or --backbone NAME"),
        ({"genotype": "g", "attention": "se"}, "--attention is for a fixed --backbone"),
        ({"genotype": "g", "backbone": "resnet18", "attention": "se"}, "--attention and --genotype: give one"),
        ({"genotype": "g", "backbone": "resnet18", "inherit": True}, "--inherit needs --genotype"),
        ({"genotype": "g", "weights": "runs/a", "inherit": True}, "--weights and --inherit: give one"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**settings)


def test_the_genotype_file_stays_as_it_is(tmp_path: Path) -> None:
    file = Path(found(tmp_path, "tiny_reid", stage1="se"))
    before = json.loads(file.read_text())
    pick_model(config(genotype=str(file), backbone="resnet18"))
    assert json.loads(file.read_text()) == before
