"""The attention cells by the name that a configuration or a command line gives them."""

from __future__ import annotations

from collections.abc import Mapping

from dnas.errors import UserError
from dnas.nn.chain import Skip
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.squeeze_excite import SqueezeExcite
from dnas.space.spec import OneOf, Spec

ATTENTION: Mapping[str, Spec] = {"none": Skip(), "dcs": DCSAttention(), "se": SqueezeExcite()}


def attention(name: str) -> Spec:
    """The attention cell called `name`."""
    if name not in ATTENTION:
        raise UserError(f"attention: found '{name}', allowed: {', '.join(ATTENTION)}")
    return ATTENTION[name]


def site(key: str) -> OneOf:
    """A place for attention that is still open: none, or one of the cells."""
    return OneOf(key, ATTENTION)
