"""Names of the entries of published state dicts, made torchvision's.

Taken are torchvision's own (old ones of MobileNetV2 and of its transformers too), timm's vision transformers, and what
Re-ID projects make of both: torchreid (`module.`), fast-reid (`backbone.`), TransReID (`base.`). OSNet keeps its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from dnas.errors import UserError

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "base.")
"""Of a data-parallel module, a compiled one, and a backbone inside a network with a head."""
RENAMED = (
    (".mlp.linear_1.", ".mlp.0."),  # torchvision's published transformers
    (".mlp.linear_2.", ".mlp.3."),
)
TIMM = (
    ("cls_token", "class_token"),
    ("pos_embed", "encoder.pos_embedding"),
    ("patch_embed.proj.", "conv_proj."),
    ("blocks.", "encoder.layers.encoder_layer_"),
    (".norm1.", ".ln_1."),
    (".norm2.", ".ln_2."),
    (".attn.qkv.weight", ".self_attention.in_proj_weight"),
    (".attn.qkv.bias", ".self_attention.in_proj_bias"),
    (".attn.proj.", ".self_attention.out_proj."),
    (".mlp.fc1.", ".mlp.0."),
    (".mlp.fc2.", ".mlp.3."),
)
"""Names in timm's vision transformers, and in torchvision's."""
WIDER = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
NARROW = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
"""Layers of an inverted residual, with and without expansion, in torchvision before 0.3 and now."""


def torchvision_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same tensors under torchvision's names of today.

    Raises:
        UserError: weights of a network that no backbone here is.
    """
    named = {without_prefix(name): tensor for name, tensor in state.items()}
    if any(re.search(r"\.bn\d\.(IN|BN)\.", name) for name in named):
        raise UserError(f"{source}: is of a ResNet with instance-batch normalisation (IBN), which no backbone here has")
    timm = "cls_token" in named and any(".attn.qkv." in name for name in named)
    expanded = {match[1] for name in named if (match := re.fullmatch(r"features\.(\d+)\.conv\.6\.weight", name))}
    return {_current(name, timm, expanded): tensor for name, tensor in named.items()}


def without_prefix(name: str) -> str:
    """The name of an entry inside its backbone."""
    while found := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(found)
    return name


def transreid(state: Mapping[str, Tensor]) -> bool:
    """Whether this is a vision transformer under TransReID's names: it saw pixels of mean and deviation 0.5."""
    return any(re.fullmatch(r"(module\.)?base\.blocks\.0\.attn\.qkv\.weight", name) for name in state)


def _current(name: str, timm: bool, expanded: set[str]) -> str:
    if timm and name.startswith("norm."):
        return f"encoder.ln.{name[5:]}"
    if match := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.([a-z_]+)", name):
        block, layer, entry = match.groups()
        old_names = WIDER if block in expanded else NARROW
        if expanded and layer in old_names:  # torchvision's of today have no layer 6
            return f"features.{block}.conv.{old_names[layer]}.{entry}"
    for old, new in TIMM if timm else RENAMED:
        name = name.replace(old, new)
    return name
