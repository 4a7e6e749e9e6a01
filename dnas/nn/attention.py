"""The attention cells by the name that a configuration or a command line gives them."""

from __future__ import annotations

from dnas.errors import UserError
from dnas.nn.cbam_channel import CBAMChannel
from dnas.nn.cbam_spatial import CBAMSpatial
from dnas.nn.chain import Skip
from dnas.nn.channel_attention import ChannelAttention
from dnas.nn.dcs_attention import DCSAttention
from dnas.nn.eca import ECA
from dnas.nn.non_local import NonLocal
from dnas.nn.selective_attention import SelectiveAttention, UnselectiveAttention
from dnas.nn.squeeze_excite import SqueezeExcite
from dnas.space.spec import OneOf, Spec

ATTENTION: dict[str, Spec] = {
    "none": Skip(),
    "dcs": DCSAttention(),
    "non_local": NonLocal(),
    "se": SqueezeExcite(),
    "eca": ECA(),
    "cbam_channel": CBAMChannel(),
    "cbam_spatial": CBAMSpatial(),
    "channel": ChannelAttention(),
    "selective": SelectiveAttention(),
    "unselective": UnselectiveAttention(),
}


def attention(name: str) -> Spec:
    """The attention cell called `name`."""
    if name not in ATTENTION:
        raise UserError(f"attention: found '{name}', allowed: {', '.join(ATTENTION)}")
    return ATTENTION[name]


def site(key: str, names: tuple[str, ...]) -> OneOf:
    """A place for attention that is still open: one of the cells called `names`.

    A space says which: one with all that there are would become another with every new cell.
    """
    return OneOf(key, {name: attention(name) for name in names})
