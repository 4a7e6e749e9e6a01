"""A genotype's errors, by their text; and holes that contradict each other."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from dnas.cli import main
from dnas.errors import UserError
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.space.genotype import Genotype, check_genotype, read_genotype
from dnas.space.holes import Shape, Width
from dnas.space.spec import Builder, Composite, Leaf, OneOf, Spec, decisions, fill, image
from search_spaces import SPACES, load_space
from tests.spaces import random_choices

SPACE = SPACES["tiny_reid"]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"format": "dnas-genotype/9"}, "key 'format': found 'dnas-genotype/9', allowed: 'dnas-genotype/1'"),
    "space": ({"space": "other"}, "key 'space': found 'other', this is the space 'tiny_reid'"),
    "unknown top key": ({"code": "import os"}, "unknown key 'code', allowed: format, space"),
    "choices kind": ({"choices": [1]}, r"key 'choices': found \[1\], expected dict"),
    "hash": ({"space_hash": "0" * 16}, "the space 'tiny_reid' has changed since"),
}
WRONG_CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"stage9.width": 16}, "unknown key 'stage9.width', allowed: stage1.block1"),
    "unknown option": ({"stage1.attention": "magic"}, "key 'stage1.attention': found 'magic', allowed: none, dcs, se"),
    "unknown width": ({"stage1.width": 17}, "key 'stage1.width': found 17, allowed: 16, 24, 32"),
    "no number": ({"stage1.width": True}, "key 'stage1.width': found True"),
    "nested": ({"stage1.width": {"a": 1}}, "key 'stage1.width': found {'a': 1}"),
}


def content() -> dict[str, Any]:
    return {"format": "dnas-genotype/1", **vars(Genotype.of(SPACE, random_choices(SPACE, 0)))}


def check(changed: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(changed))
    check_genotype(read_genotype(file), SPACE, file)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        check(content() | change, tmp_path)


@pytest.mark.parametrize("case", WRONG_CHOICES)
def test_wrong_choice(case: str, tmp_path: Path) -> None:
    change, message = WRONG_CHOICES[case]
    wrong = content()
    wrong["choices"] = wrong["choices"] | change
    with pytest.raises(UserError, match=message) as error:
        check(wrong, tmp_path)
    assert str(tmp_path / "genotype.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_choice_and_broken_files(tmp_path: Path) -> None:
    wrong = content()
    del wrong["choices"]["stage2.width"]
    with pytest.raises(UserError, match=r"key 'stage2.width' is missing, allowed: 32, 48, 64"):
        check(wrong, tmp_path)
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(content())[:-20])
    with pytest.raises(UserError, match="not readable as JSON"):
        read_genotype(file)
    with pytest.raises(UserError, match="no such file"):
        read_genotype(tmp_path / "nowhere.json")


def test_contradicting_holes_are_refused() -> None:
    spec = Chain((ConvNormAct(Width("w", (8, 16))), ConvNormAct(Width("w", (8, 24)))))
    with pytest.raises(UserError, match=r"hole w: used with options \(8, 16\) and with \(8, 24\)"):
        decisions(spec)
    uneven = OneOf("op", {"a": ConvNormAct(8), "b": ConvNormAct(16)})
    with pytest.raises(UserError, match="options must agree on their output shape"):
        uneven.out(image(8, 8))


@dataclass(frozen=True)
class Branches(Composite):
    """Operations by name, and a width by name: what a user's description may hold."""

    by_name: Mapping[str, Spec]
    widths: Mapping[str, int | Width]
    label = "branches"

    def leaves(self, x: Shape) -> Iterator[Leaf]:
        raise NotImplementedError

    def build(self, x: Shape, builder: Builder) -> nn.Module:
        raise NotImplementedError


def test_holes_in_mappings_are_found_and_filled() -> None:
    branches = {"a": ConvNormAct(Width("a", (8, 16))), "b": OneOf("b", {"none": Skip(), "conv": ConvNormAct(8)})}
    spec = Branches(branches, {"c": Width("c", (1, 2)), "d": 3})
    assert list(decisions(spec)) == ["a", "b", "c"]
    filled = fill(spec, {"a": 16, "b": "conv", "c": 2})
    assert filled == Branches({"a": ConvNormAct(16), "b": ConvNormAct(8)}, {"c": 2, "d": 3})
    assert decisions(filled) == {}


def test_a_genotype_never_runs_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap, mark = tmp_path / "trap.py", tmp_path / "ran"
    trap.write_text(f"open({str(mark)!r}, 'w')\n")
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps(content() | {"space": str(trap)}))
    config = tmp_path / "config.yaml"
    config.write_text(f"space: {trap}\n")
    assert main(["show", str(file)]) == 2
    assert main(["search", "--config", str(config), "--data", "d", "--out", str(tmp_path / "o")]) == 2
    assert "must be typed" in capsys.readouterr().err
    assert not mark.exists()


def test_spaces_are_found_by_name_or_file(tmp_path: Path) -> None:
    assert load_space("tiny_reid").name == "tiny_reid"
    with pytest.raises(UserError, match="found 'huge', allowed: tiny_reid"):
        load_space("huge")
    own = tmp_path / "own.py"
    own.write_text("from search_spaces.fbnetv2_reid import tiny_reid\nSPACE = tiny_reid()\n")
    assert load_space(str(own)).hash == SPACE.hash
    own.write_text(  # as this project writes its own: postponed annotations and a dataclass
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int\nfrom search_spaces.fbnetv2_reid import tiny_reid\nSPACE = tiny_reid()\n"
    )
    assert load_space(str(own)).hash == SPACE.hash
    own.write_text("SPACE = (\n")
    with pytest.raises(UserError, match=r"own.py: SyntaxError"):
        load_space(str(own))
    own.write_text("SPACE = 3\n")
    with pytest.raises(UserError, match="expected a variable SPACE"):
        load_space(str(own))
