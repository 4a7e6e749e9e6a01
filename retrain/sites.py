"""The attention of a trained network at work on a few images: what enters each site, and what it does with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dnas.nn.looked import Token
from dnas.nn.network import Network
from dnas.nn.sites import Site
from dnas.nn.vit import PatchTokensModule


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
def position_maps(network: Network, site: Site, x: Tensor, token: Token) -> Tensor:
    """Where a position looks (B, H', W'): its row of the attention; of a CBAM gate, the gates themselves.

    Args:
        x: what entered the module.
        token: row and column of the position, 0 to 1; in a transformer's blocks the class token looks.
    """
    return site.module.position_map(x, token, grid_of(network))


@torch.no_grad()
def selection_by_place(network: Network, site: Site, x: Tensor) -> Tensor | None:
    """Share of the channels that a selection opens at every place (B, H', W'); none for a site that does not select."""
    opened_BNC = site.module.opened(x)
    return None if opened_BNC is None else site.module.by_place(opened_BNC.mean(2), x, grid_of(network))


@torch.no_grad()
def channel_use(site: Site, x: Tensor) -> Tensor | None:
    """What is done to every channel (B, C); none for a site that treats all of them alike."""
    return site.module.channel_use(x)
