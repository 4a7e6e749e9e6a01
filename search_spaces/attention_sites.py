"""`attention_sites`: a fixed backbone with a hole after every stage: which attention, or none.

Published weights load into the supernet (`dnas search --weights FILE`), and the search finds where attention pays.
A vision transformer has channel selection inside the blocks of a stage, other cells on its patches.
"""

from __future__ import annotations

from dnas.nn.attention import site
from dnas.nn.backbones import backbone
from dnas.space.spec import Space

CELLS = ("none", "dcs", "non_local", "se", "eca", "cbam_channel", "cbam_spatial", "channel")


def attention_sites(
    name: str, backbone_name: str, width: float = 1.0, small: bool = False, cells: tuple[str, ...] = CELLS
) -> Space:
    """The backbone called `backbone_name` (`dnas.nn.backbones`), one of `cells` after each of its stages."""
    spec = backbone(backbone_name, width, small, lambda stage: site(f"stage{stage}.attention", cells))
    return Space(name, spec, 128 if small else 256, 64 if small else 128, f"{backbone_name}: which attention where")
