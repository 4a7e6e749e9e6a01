"""Parts of torchvision backbones that keep torchvision's parameter names, so that its weights load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dnas.errors import UserError


class BackbonePart(nn.Module):
    """Children in sequence, named as in torchvision: the state dict is a part of torchvision's own."""

    ours: str | None = None
    """A word in the names of parameters that are ours: published weights need not have them."""

    def adapt(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights changed to fit this part (a position embedding to another grid, say)."""
        return state

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


def _modern(name: str) -> str:
    """Names as torchvision has them now: its published transformers still say linear_1 and linear_2."""
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


def _optional(name: str, part: BackbonePart) -> bool:
    """Entries that published files need not have: a counter that old ones lack, and what is ours."""
    return name.endswith("num_batches_tracked") or (part.ours is not None and part.ours in name)


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a torchvision state dict into the backbone parts of a network. Extra entries (a classifier) are ignored.

    Raises:
        UserError: the file is missing or not a state dict, an entry is missing or has another shape.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such weights file")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise UserError(
            f"{file}: not a PyTorch state dict that is safe to load ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UserError(f"{file}: expected a mapping of names to tensors")
    state = {_modern(name): tensor for name, tensor in state.items()}
    parts = [module for module in network.modules() if isinstance(module, BackbonePart)]
    if not parts:
        raise UserError(f"{file}: this network has no torchvision parts that weights could go to")
    for part in parts:
        own = part.state_dict()
        fitting = part.adapt(state)
        wanted = {name: tensor for name, tensor in own.items() if name in fitting or not _optional(name, part)}
        for name, tensor in wanted.items():
            if name not in fitting:
                raise UserError(f"{file}: entry '{name}' is missing")
            if fitting[name].shape != tensor.shape:
                raise UserError(
                    f"{file}: entry '{name}' has shape {list(fitting[name].shape)}, the network {list(tensor.shape)}"
                )
        part.load_state_dict({**own, **{name: fitting[name] for name in wanted}})
