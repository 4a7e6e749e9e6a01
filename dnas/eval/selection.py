"""What the channel selections of a network do on some images: which channels are open, and what attention looks at.

Shapes: B batch, N tokens, K keys, C channels, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dnas.data.images import Images
from dnas.eval.embed import embed
from dnas.nn.channel_selection import ChannelSelection
from dnas.nn.looked import Looked
from dnas.nn.network import Network
from dnas.nn.sites import sites_of

LOOKED_AT = 128
"""Images of a set that a report looks at, evenly spaced: its cost stays below that of a look at retrieval."""
ROWS = 64
"""Rows of an affinity that are looked at, evenly spaced."""
Replace = Callable[[str, Tensor], Tensor]
"""Name of a site and its masks (B, N, C) -> the masks to use."""


@dataclass(frozen=True)
class SelectionUse:
    """What one selection did with the images.

    Args:
        share: of channels open in inference, over images and positions.
        depending: share of the channels that are open for some images or positions and closed for others.
        perplexity: of the affinity's rows, as a share of the tokens that can be looked at.
        by_channel: share of images and positions at which each channel in use is open.
    """

    share: float
    depending: float
    perplexity: float
    by_channel: Tensor

    def plain(self) -> dict[str, float]:
        return {"share": self.share, "depending": self.depending, "perplexity": self.perplexity}


def selections(network: Network) -> dict[str, Looked]:
    """Name of every site of attention that selects channels (`dnas.nn.sites`) -> its module, in order."""
    return {site.name: site.module for site in sites_of(network) if site.module.selection is not None}


class _Watch:
    """Sums over the images that went through one site."""

    def __init__(self) -> None:
        self.open_C: Tensor | float = 0.0
        self.tokens = self.rows = 0
        self.perplexity = 0.0
        self.used_C: Tensor | None = None

    def masks(self, module: nn.Module, given: tuple[Tensor], mask_BNC: Tensor) -> None:
        assert isinstance(module, ChannelSelection)
        self.open_C = self.open_C + mask_BNC.sum((0, 1), dtype=torch.float64)
        self.tokens += mask_BNC.shape[0] * mask_BNC.shape[1]
        self.used_C = module.mask(torch.ones_like(mask_BNC[:1, 0]))[0] > 0  # the channels of an open width

    def affinity(self, module: nn.Module, given: tuple[Tensor]) -> None:
        assert isinstance(module, Looked)
        q, k = module.queries_and_keys(given[0])
        q = q[..., :: max(1, q.shape[-2] // ROWS), :]
        entropy = torch.special.entr((q @ k.transpose(-1, -2)).softmax(-1)).sum(-1)
        self.perplexity += float(entropy.exp().sum()) / k.shape[-2]
        self.rows += entropy.numel()

    def use(self) -> SelectionUse:
        assert isinstance(self.open_C, Tensor)
        share_C = (self.open_C / self.tokens)[self.used_C]
        depending = ((share_C > 0) & (share_C < 1)).double().mean()
        return SelectionUse(float(share_C.mean()), float(depending), self.perplexity / self.rows, share_C.cpu())


def selection_use(network: Network, images: Images) -> dict[str, SelectionUse]:
    """Name of every selection that runs -> what it does with the images in inference (the first `LOOKED_AT`, spaced).

    The network's mode is put back; in a supernet these are the sites of the current draw.
    """
    sites = selections(network)
    watches = {name: _Watch() for name in sites}
    hooks = []
    for name, site in sites.items():
        assert site.selection is not None
        hooks.append(site.register_forward_pre_hook(watches[name].affinity))
        hooks.append(site.selection.register_forward_hook(watches[name].masks))
    try:
        embed(network, spaced(images, LOOKED_AT), batch=32)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: watch.use() for name, watch in watches.items() if watch.tokens}


def selection_report(network: Network, images: Images) -> dict[str, dict[str, float]]:
    """`selection_use` as numbers for the log: {site: {"share": .., "depending": .., "perplexity": ..}}."""
    return {name: use.plain() for name, use in selection_use(network, images).items()} if selections(network) else {}


def selection_warnings(report: Mapping[str, Mapping[str, float]], reach: float = math.inf) -> list[str]:
    """One line on the sites that select all channels or none, whatever the image; nothing if there are none.

    Args:
        reach: how far the training lets theta's bias get: a selection starts with everything open, at 1 or more.
    """
    found = []
    for word, share in (("all", 1.0), ("none", 0.0)):
        names = [name for name, use in report.items() if use["share"] == share]
        if names:
            found.append(f"{word} of the channels selected: whatever the image, at {', '.join(names)}")
            if word == "all" and reach < 1:
                found[-1] += f" (this run moves a bias of 1 or more by about {reach:.2g}: raise optim.selection_lr)"
    return found


def spaced(images: Images, count: int) -> Images:
    """At most `count` of the images, evenly spaced."""
    keep = torch.zeros(len(images), dtype=torch.bool)
    keep[torch.linspace(0, len(images) - 1, min(count, len(images))).long()] = True
    return images.subset(keep)


@contextmanager
def replaced_masks(network: Network, replace: Replace) -> Iterator[None]:
    """Use other masks than the network's own while this lasts."""

    def hook(name: str) -> Any:
        return lambda module, given, mask_BNC: replace(name, mask_BNC)

    hooks = []
    for name, site in selections(network).items():
        assert site.selection is not None
        hooks.append(site.selection.register_forward_hook(hook(name)))
    try:
        yield
    finally:
        for made in hooks:
            made.remove()


def other_masks(use: Mapping[str, SelectionUse], seed: int = 0) -> dict[str, Replace]:
    """What learned masks are compared with.

    `open`: every channel; `random`: frozen random ones of equal share, the same for every image; `mean`: each channel's
    mean; `other image`: those of the next image of the batch.
    """
    numbers = {name: seed + number for number, name in enumerate(use)}

    def random(name: str, mask_BNC: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(numbers[name])
        drawn_1NC = torch.rand(1, *mask_BNC.shape[1:], generator=generator) < use[name].share
        return drawn_1NC.to(mask_BNC).expand_as(mask_BNC)

    def mean(name: str, mask_BNC: Tensor) -> Tensor:
        return use[name].by_channel.to(mask_BNC).expand_as(mask_BNC)

    return {
        "open": lambda name, mask_BNC: torch.ones_like(mask_BNC),
        "random": random,
        "mean": mean,
        "other image": lambda name, mask_BNC: mask_BNC.roll(1, 0),
    }
