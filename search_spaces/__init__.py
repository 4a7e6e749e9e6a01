"""Search spaces: one file each, found by name; a user's own file is named by its path."""

from __future__ import annotations

from collections.abc import Mapping

from dnas.errors import UserError
from dnas.space.own_file import run_file
from dnas.space.spec import Space
from search_spaces.attention_sites import attention_sites
from search_spaces.cells_reid import cells_reid
from search_spaces.fbnetv2_reid import LARGE_OPS, fbnetv2_reid, tiny_reid
from search_spaces.nas_bench_201 import nas_bench_201

SPACES: Mapping[str, Space] = {
    space.name: space
    for space in (
        tiny_reid(),
        tiny_reid("tiny_reid_dcs", ("dcs",)),
        tiny_reid("tiny_reid_ca", ("se",)),
        fbnetv2_reid("fbnetv2_reid"),
        fbnetv2_reid("fbnetv2_reid_dcs", ("dcs",)),
        fbnetv2_reid("fbnetv2_reid_ca", ("se",)),
        fbnetv2_reid("fbnetv2_reid_ops", plan=LARGE_OPS),
        cells_reid("cells_reid", stem=(16, 32), plan="NNRNNRNN", width=16, head=1024, height=256),
        cells_reid("cells_reid_tiny", stem=(16,), plan="RNRN", width=8, head=256, height=128),
        nas_bench_201(),
        nas_bench_201("nas_bench_201_small", channels=16, cells=1, side=16),
        nas_bench_201("nas_bench_201_proxy", channels=16, cells=2, side=16, residual=False),
        attention_sites("attention_sites_resnet50", "resnet50"),
        attention_sites("attention_sites_mobilenet_v2", "mobilenet_v2"),
        attention_sites("attention_sites_vit_s_16", "vit_s_16", cells=("none", "dcs")),
        attention_sites("attention_sites_tiny", "resnet18", width=0.25, small=True),
    )
}


def named_space(name: str) -> Space:
    """A space of this package by name. Safe for names that come from files: nothing is imported or run.

    Raises:
        UserError: no such space.
    """
    if name not in SPACES:
        raise UserError(
            f"space: found '{name}', allowed: {', '.join(SPACES)}; a space of your own needs --space FILE.py"
        )
    return SPACES[name]


def load_space(name: str) -> Space:
    """A space by name, or from a Python file of the user's that defines `SPACE`. The file is run.

    Only what was typed on the command line may come here; names from genotypes and run folders go to
    `named_space`.

    Raises:
        UserError: no such space, or a file that does not run or defines no space.
    """
    if not name.endswith(".py"):
        return named_space(name)
    module = run_file(name, "space")
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        raise UserError(
            f"{name}: expected a variable SPACE of type dnas.space.spec.Space, found {type(space).__name__}"
        )
    return space
