"""Random points of the shipped spaces, for tests over all of them."""

import random

from dnas.nn.attention import ATTENTION, site
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.nn.inverted_residual import InvertedResidual
from dnas.space.holes import Width
from dnas.space.spec import Choice, OneOf, Space, decisions
from search_spaces import SPACES
from search_spaces.attention_sites import attention_sites

SITES = {
    "attention_sites_resnet50": ("resnet50", tuple(ATTENTION)),
    "attention_sites_mobilenet_v2": ("mobilenet_v2", tuple(ATTENTION)),
    "attention_sites_vit_s_16": ("vit_s_16", tuple(name for name in ATTENTION if name != "selective")),
}
"""Large ones, tested at an eighth of their width."""

ALL = [
    (attention_sites(name, SITES[name][0], 0.125, cells=SITES[name][1]) if name in SITES else space).resized(32, 16)
    for name, space in SPACES.items()
]


def random_choices(space: Space, seed: int) -> dict[str, Choice]:
    """Independent uniform choices."""
    rng = random.Random(seed)
    return {key: rng.choice(decision.options) for key, decision in decisions(space.spec).items()}


def _cells() -> Space:
    """Every attention cell after an open width, behind a second open width."""
    first, second = Width("first", (4, 6, 9)), Width("second", (5, 8))
    nested = OneOf("two", {"none": Skip(), "some": site("two.cell", ("dcs", "se", "cbam_spatial"))})
    parts = (
        ConvNormAct(first, 3, 2),
        site("one", tuple(ATTENTION)),
        InvertedResidual(second, expand=2),
        site("last", tuple(ATTENTION)),
        nested,
    )
    return Space("cells", Chain((*parts, ConvNormAct(12, 1))), 32, 16)


CELLS = _cells()
