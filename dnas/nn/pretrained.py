"""Parts of torchvision backbones that keep torchvision's parameter names, so that its weights load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dnas.errors import UserError
from dnas.nn.looked import Grid
from dnas.nn.weights_file import published

SHOWN = 3
"""Names of entries in the line for people."""


class BackbonePart(nn.Module):
    """Children in sequence, named as in torchvision: the state dict is a part of torchvision's own."""

    ours: str | None = None
    """A word in the names of parameters that are ours: published weights need not have them."""

    def adapt(self, state: Mapping[str, Tensor], source: str, grid: Grid | None) -> tuple[Mapping[str, Tensor], str]:
        """Weights changed to fit this part (a position embedding to another grid, say), and a word about it.

        Args:
            source: where they come from, for messages.
            grid: of the patches of a vision transformer's weights, where it is known.
        """
        return state, ""

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


class NamedSequence(nn.ModuleDict):
    """A ModuleDict that runs its modules in order; numbered names need not start at zero."""

    def forward(self, x: Tensor) -> Tensor:
        for child in self.values():
            x = child(x)
        return x


@dataclass(frozen=True)
class Loaded:
    """What became of the entries of a state dict."""

    source: str
    loaded: int
    left_out: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = ", ".join(self.left_out[:SHOWN]) + (", ..." if len(self.left_out) > SHOWN else "")
        left_out = f"{len(self.left_out)} left out" + (f" ({names})" if names else "")
        return "; ".join([f"weights: {self.source}: {self.loaded} tensors loaded, {left_out}", *self.changed])


def parse_grid(text: str | None) -> Grid | None:
    """Rows and columns of "16x8".

    Raises:
        UserError: not of this form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})\s*x\s*(\d{1,4})", text)
    if not found or not int(found[1]) * int(found[2]):
        raise UserError(f"weights_grid: found '{text}', allowed: rows x columns of patches, such as 16x8")
    return int(found[1]), int(found[2])


def load_weights(
    network: nn.Module, source: str | Path, backbone: str | None = None, grid: str | None = None
) -> Loaded:
    """Load published weights into the backbone parts of a network. Extra entries (a classifier) are left out.

    Args:
        source: file of a state dict (`dnas.nn.weight_names` says whose), or a name.
        backbone: whose weights to fetch if `source` is a name: one of torchvision's (`DEFAULT`, `IMAGENET1K_V1`), or
            `timm`.
        grid: rows and columns of the patches of a vision transformer's weights, "16x8"; a square needs none.

    Raises:
        UserError: no such file or name, no network, not a state dict, an entry is missing or has another shape, or the
            grid of a position embedding is not known.
    """
    known = published(source, backbone)
    parts = [module for module in network.modules() if isinstance(module, BackbonePart)]
    if not parts:
        raise UserError(f"{source}: this network has no torchvision parts that weights could go to")
    used: set[str] = set()
    changed = dict.fromkeys([known.note] if known.note else [])
    for part in parts:
        own = part.state_dict()
        fitting, word = part.adapt(known.tensors, known.source, parse_grid(grid))
        changed |= dict.fromkeys([word] if word else [])
        wanted = {name: tensor for name, tensor in own.items() if name in fitting or not _optional(name, part)}
        for name, tensor in wanted.items():
            if name not in fitting:
                raise UserError(f"{source}: entry '{name}' is missing")
            if fitting[name].shape != tensor.shape:
                raise UserError(
                    f"{source}: entry '{name}' has shape {list(fitting[name].shape)}, the network {list(tensor.shape)}"
                )
        part.load_state_dict({**own, **{name: fitting[name] for name in wanted}})
        used |= wanted.keys()
    left_out = tuple(name for name in known.tensors if name not in used)
    return Loaded(known.source, len(used), left_out, tuple(changed))


def _optional(name: str, part: BackbonePart) -> bool:
    """Entries that published files need not have: a counter that old ones lack, and what is ours."""
    return name.endswith("num_batches_tracked") or (part.ours is not None and part.ours in name)
