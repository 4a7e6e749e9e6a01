"""The attention of a trained network at work on a few images: its sites, and what enters each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dnas.nn.cbam_spatial import CBAMSpatialModule
from dnas.nn.chain import Chain
from dnas.nn.channel_attention import ChannelAttentionModule
from dnas.nn.dcs_attention import ChannelSelection
from dnas.nn.eca import ECAModule
from dnas.nn.network import Network
from dnas.nn.non_local import NonLocalModule, as_tokens
from dnas.nn.squeeze_excite import SqueezeExciteModule
from dnas.nn.vit import Block, PatchTokensModule
from dnas.space.spec import Spec

SITES = (NonLocalModule, Block, CBAMSpatialModule, SqueezeExciteModule, ECAModule, ChannelAttentionModule)


@dataclass(frozen=True)
class Site:
    """One attention module of a network."""

    name: str
    module: nn.Module

    @property
    def over_positions(self) -> bool:
        """Whether there is a map over the picture to look at; else it weighs channels."""
        return isinstance(self.module, NonLocalModule | Block | CBAMSpatialModule)

    @property
    def on_channels(self) -> bool:
        """Whether it selects or weighs channels."""
        gates = isinstance(self.module, SqueezeExciteModule | ECAModule | ChannelAttentionModule)
        return gates or self.selection is not None

    @property
    def word(self) -> str:
        """What `channel_use` measures."""
        if isinstance(self.module, SqueezeExciteModule | ECAModule):
            return "gate"
        return "share of its own" if isinstance(self.module, ChannelAttentionModule) else "share selected"

    @property
    def selection(self) -> ChannelSelection | None:
        """The channel selection inside it, if it is DCS-Attention."""
        found = getattr(self.module, "select", None)
        return found if isinstance(found, ChannelSelection) else None


def sites_of(network: Network, spec: Spec) -> list[Site]:
    """The attention modules, in order, with names such as 'stage 2: DCS'."""
    found = []
    for path, module in network.backbone.named_modules():
        if isinstance(module, SITES):
            found.append(Site(_name(spec, path), module))
    return found


def _name(spec: Spec, path: str) -> str:
    """What a module is called in the description: the chain's name, the operation's label, the block's number."""
    group, rest = "", path.split(".")
    while rest and isinstance(spec, Chain) and rest[0].isdigit():
        spec, rest = spec.parts[int(rest[0])], rest[1:]
        group = spec.name if isinstance(spec, Chain) and spec.name else group
    block = re.search(r"encoder_layer_(\d+)", ".".join(rest))
    label = f"block {int(block[1]) + 1}" if block else spec.label
    return f"{group}: {label}" if group else label


@contextmanager
def entering(modules: list[nn.Module]) -> Iterator[list[list[Tensor]]]:
    """Collects what enters each module while this lasts, batch by batch."""
    found: list[list[Tensor]] = [[] for _ in modules]

    def remember(number: int) -> Any:
        return lambda module, given: found[number].append(given[0].detach())

    hooks = [module.register_forward_pre_hook(remember(number)) for number, module in enumerate(modules)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def grid_of(network: Network) -> tuple[int, int] | None:
    """Rows and columns of patches, if the network is a vision transformer."""
    return next((m.grid for m in network.modules() if isinstance(m, PatchTokensModule)), None)


@torch.no_grad()
def position_maps(network: Network, site: Site, x: Tensor, token: tuple[float, float]) -> Tensor:
    """Where a position looks (B, H', W'): its row of the attention; of a CBAM gate, the gates themselves.

    Args:
        x: what entered the module.
        token: row and column of the position, 0 to 1; in a transformer the class token looks.
    """
    module = site.module
    found: Tensor
    if isinstance(module, CBAMSpatialModule):
        found = module.gates(x)[:, 0]
        return found
    if isinstance(module, Block):
        grid = grid_of(network)
        assert grid is not None
        found = module.affinity(x)[:, 0, 1:].unflatten(1, grid)
        return found
    assert isinstance(module, NonLocalModule)
    h, w = x.shape[2:]
    row, col = min(int(token[0] * h), h - 1), min(int(token[1] * w), w - 1)
    keys = (-(-h // module.stride), -(-w // module.stride))
    found = module.affinity(x)[:, row * w + col].unflatten(1, keys)
    return found


@torch.no_grad()
def open_channels(site: Site, x: Tensor) -> Tensor:
    """Which channels a selection opens at every position in inference (B, N, C), of what entered the module."""
    module = site.module
    assert isinstance(module, Block | NonLocalModule)
    assert site.selection is not None
    tokens_BNC = module.ln_1(x) if isinstance(module, Block) else module.tokens(as_tokens(x))
    return (site.selection.theta(tokens_BNC) > 0).float()


def selection_by_place(network: Network, site: Site, x: Tensor) -> Tensor | None:
    """Share of the channels that a selection opens at every place (B, H', W'); none for a site that does not select."""
    if site.selection is None:
        return None
    share_BN = open_channels(site, x).mean(2)
    grid = grid_of(network)
    found: Tensor = share_BN.unflatten(1, x.shape[2:]) if grid is None else share_BN[:, 1:].unflatten(1, grid)
    return found


@torch.no_grad()
def channel_use(site: Site, x: Tensor) -> tuple[Tensor, bool] | None:
    """What is done to every channel (B, C) and whether it is a gate; none for a site that treats all of them alike.

    DCS: the share of the positions at which a channel is selected. Gates: 0 to 2. Channel self-attention: how much of a
    channel is its own (the diagonal of A).
    """
    module = site.module
    if site.selection is not None:
        return open_channels(site, x).mean(1), False
    if isinstance(module, SqueezeExciteModule | ECAModule):
        return module.gates(x)[:, :, 0, 0], True
    if isinstance(module, ChannelAttentionModule):
        return module.affinity(x).diagonal(dim1=1, dim2=2), False
    return None
