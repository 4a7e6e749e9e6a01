"""What a space is known by: hashes of the shipped spaces for ever, and what may change without changing them."""

import importlib
from dataclasses import make_dataclass, replace
from typing import Any

import pytest

from dnas.nn.attention import ATTENTION
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.space.canonical import added, digest, mark, plain
from search_spaces import SPACES

SHIPPED = {
    "tiny_reid": "8a872a49d3944b4d",
    "tiny_reid_dcs": "65c793bd04275797",
    "tiny_reid_ca": "136ca3d6052718ec",
    "fbnetv2_reid": "caee500040f73965",
    "fbnetv2_reid_dcs": "90590d8e09612617",
    "fbnetv2_reid_ca": "6840d28c19b522c3",
    "fbnetv2_reid_ops": "d0ee5e662438b327",
    "cells_reid": "0a26725e07d2bd16",
    "cells_reid_tiny": "21489ff1015ecf78",
    "attention_sites_resnet50": "1be0c6b8f0acda9a",
    "attention_sites_mobilenet_v2": "a3c4062d45a9d9af",
    "attention_sites_vit_s_16": "475d0a54363b5b35",
    "attention_sites_tiny": "ce6fec7e80484da0",
}
"""Genotypes in the world carry these. One changes only with a space that is another one now; then say so to people."""


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_keeps_its_hash(name: str) -> None:
    assert SPACES[name].hash == SHIPPED[name]


def test_a_new_attention_cell_changes_no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTENTION, "new", Skip())  # type: ignore[arg-type]
    module = importlib.reload(importlib.import_module("search_spaces.attention_sites"))
    space = module.attention_sites("attention_sites_resnet50", "resnet50")
    assert space.hash == SHIPPED["attention_sites_resnet50"]


def described(*more: tuple[str, type, Any]) -> Any:
    """A description as it was first shipped, or with fields that it got later."""
    return make_dataclass("Described", [("width", int, 8), *more], frozen=True)()


def test_a_field_that_came_later() -> None:
    """Its old behaviour is the old description; a new default is not; without a word it is another description."""
    old = digest(described())
    same = described(("scaled", bool, added(False, before=False)))
    assert digest(same) == old
    assert digest(replace(same, scaled=True)) != old
    other = described(("scaled", bool, added(True, before=False)))
    assert digest(other) != old
    assert digest(replace(other, scaled=False)) == old
    assert digest(described(("scaled", bool, False))) != old
    assert "scaled" in plain(other)


def test_everything_else_is_in_the_hash() -> None:
    specs = [ConvNormAct(8), ConvNormAct(8, 5), ConvNormAct(8, stride=2), ConvNormAct(8, activation=False), Skip()]
    assert len({digest(Chain((spec,))) for spec in specs}) == len(specs)


def test_a_mark_is_not_in_the_hash() -> None:
    """It says what a part is and changes nothing that is computed."""
    assert (
        digest(described(("stage", int, mark(0)))) == digest(described(("stage", int, mark(3)))) == digest(described())
    )
    assert Chain((Skip(),), stage=1) != Chain((Skip(),), stage=2)
