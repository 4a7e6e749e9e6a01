"""Parts of torchvision backbones that keep torchvision's parameter names, so that its weights load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models

from dnas.errors import UserError
from dnas.imagenet import MEAN, STD


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
TIMM_MODELS = {"vit_b_16": "vit_base_patch16_224", "vit_s_16": "vit_small_patch16_224"}


def _current(name: str, timm: bool) -> str:
    """The name of an entry as torchvision has it now."""
    if timm and name.startswith("norm."):
        return f"encoder.ln.{name[5:]}"
    for old, new in TIMM if timm else RENAMED:
        name = name.replace(old, new)
    return name


def _optional(name: str, part: BackbonePart) -> bool:
    """Entries that published files need not have: a counter that old ones lack, and what is ours."""
    return name.endswith("num_batches_tracked") or (part.ours is not None and part.ours in name)


def load_weights(network: nn.Module, source: str | Path, backbone: str | None = None) -> None:
    """Load published weights into the backbone parts of a network. Extra entries (a classifier) are ignored.

    Args:
        source: file of a state dict (of torchvision, of OSNet's authors, of timm's vision transformers), or a name.
        backbone: whose weights to fetch if `source` is a name: one of torchvision's (`DEFAULT`, `IMAGENET1K_V1`), or
            `timm`.

    Raises:
        UserError: no such file or name, no network, not a state dict, an entry is missing or has another shape.
    """
    file = Path(source)
    state = _fetched(str(source), backbone) if not file.suffix and backbone and not file.is_file() else _read(file)
    parts = [module for module in network.modules() if isinstance(module, BackbonePart)]
    if not parts:
        raise UserError(f"{source}: this network has no torchvision parts that weights could go to")
    for part in parts:
        own = part.state_dict()
        fitting = part.adapt(state)
        wanted = {name: tensor for name, tensor in own.items() if name in fitting or not _optional(name, part)}
        for name, tensor in wanted.items():
            if name not in fitting:
                raise UserError(f"{source}: entry '{name}' is missing")
            if fitting[name].shape != tensor.shape:
                raise UserError(
                    f"{source}: entry '{name}' has shape {list(fitting[name].shape)}, the network {list(tensor.shape)}"
                )
        part.load_state_dict({**own, **{name: fitting[name] for name in wanted}})


def _read(file: Path) -> Mapping[str, Tensor]:
    """A state dict under torchvision's names."""
    if not file.is_file():
        raise UserError(f"{file}: no such weights file")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        raise UserError(
            f"{file}: not a PyTorch state dict that is safe to load ({str(error).splitlines()[0]})"
        ) from error
    for key in ("state_dict", "model"):  # how training toolkits save it
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UserError(f"{file}: expected a mapping of names to tensors")
    return _named(state)


def _named(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    timm = "cls_token" in state and any(".attn.qkv." in name for name in state)
    return {_current(name, timm): tensor for name, tensor in state.items()}


def _fetched(name: str, backbone: str) -> Mapping[str, Tensor]:
    """Published weights by name; they are kept in torch's (or timm's) own cache."""
    if name == "timm":
        return _from_timm(backbone)
    known = get_model_weights(backbone).__members__ if backbone in list_models() else {}
    if name not in known:
        allowed = ", ".join([*known, *(["timm"] if backbone in TIMM_MODELS else [])])
        raise UserError(
            f"weights: found '{name}', allowed: a file" + (f", or for {backbone}: {allowed}" * bool(allowed))
        )
    try:
        return _named(torch.hub.load_state_dict_from_url(known[name].url, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:  # no network, a proxy, a damaged download
        where = f"cannot be fetched from {known[name].url} ({error}); download it and give --weights FILE"
        raise UserError(f"weights: {name}: {where}") from error


def _from_timm(backbone: str) -> Mapping[str, Tensor]:
    if backbone not in TIMM_MODELS:
        raise UserError(f"weights: found 'timm' with {backbone}, allowed with: {', '.join(TIMM_MODELS)}")
    try:
        import timm
    except ImportError:
        raise UserError("weights: timm is not installed: pip install dnas-reid[timm]") from None
    try:
        model = timm.create_model(TIMM_MODELS[backbone], pretrained=True)
        known = model.pretrained_cfg
        return for_other_pixels(_named(model.state_dict()), known["mean"], known["std"])
    except Exception as error:  # the hub's client raises many kinds without a network
        raise UserError(f"weights: timm: {TIMM_MODELS[backbone]} cannot be fetched ({error})") from error


def for_other_pixels(state: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float]) -> Mapping[str, Tensor]:
    """Weights of a vision transformer that saw pixels of another mean and deviation, for pixels as they are here.

    The change is affine and patches have no padding, so it goes into the first layer, exactly.
    """
    own_mean, own_std, mean_C, std_C = (torch.tensor(values) for values in (MEAN, STD, mean, std))
    weight = state["conv_proj.weight"]
    shift = (weight * ((own_mean - mean_C) / std_C).view(1, -1, 1, 1)).sum((1, 2, 3))
    scaled = weight * (own_std / std_C).view(1, -1, 1, 1)
    return {**state, "conv_proj.weight": scaled, "conv_proj.bias": state["conv_proj.bias"] + shift}
