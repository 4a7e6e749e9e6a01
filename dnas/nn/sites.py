"""The attention of a network, by the names that people read: 'stage 2: DCS'."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dnas.nn.chain import Chain
from dnas.nn.looked import Looked
from dnas.nn.network import Network
from dnas.space.spec import OneOf, Spec


@dataclass(frozen=True)
class Site:
    """One attention module of a network; no other of its sites has this name."""

    name: str
    module: Looked


def sites_of(network: Network) -> list[Site]:
    """The attention modules, in order; of a supernet those of every option.

    Several that are called alike (in one cell) have their modules' names too.
    """
    found = [(path, module) for path, module in network.backbone.named_modules() if isinstance(module, Looked)]
    names = [_name(network.spec, path) for path, _ in found]
    return [
        Site(name if names.count(name) == 1 else f"{name} ({path})", module)
        for name, (path, module) in zip(names, found, strict=True)
    ]


def _name(spec: Spec, path: str) -> str:
    """What a module is called in the description: the chain's name, the operation's label, the block's number."""
    group, rest = "", path.split(".")
    while rest:
        if isinstance(spec, Chain) and rest[0].isdigit():
            spec, rest = spec.parts[int(rest[0])], rest[1:]
        elif isinstance(spec, OneOf) and rest[0] == "operations":  # `dnas.search.supernet.Mixed`
            spec, rest = list(spec.options.values())[int(rest[1])], rest[2:]
        else:
            break
        group = spec.name if isinstance(spec, Chain) and spec.name else group
    block = re.search(r"encoder_layer_(\d+)", ".".join(rest))
    label = f"block {int(block[1]) + 1}" if block else spec.label
    return f"{group}: {label}" if group else label
