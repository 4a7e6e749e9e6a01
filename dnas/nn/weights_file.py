"""Published weights from a file or by name, under torchvision's names; nothing in a file is executed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models import get_model_weights, list_models

from dnas.errors import UserError
from dnas.imagenet import MEAN, STD
from dnas.nn.weight_names import torchvision_names, transreid

TIMM_MODELS = {"vit_b_16": "vit_base_patch16_224", "vit_s_16": "vit_small_patch16_224"}
NESTED = ("state_dict", "model", "net", "model_state_dict", "network", "weights")
"""Keys under which training programs save a state dict."""
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and deviation of the pixels that TransReID trains on."""


@dataclass(frozen=True)
class Published:
    """Tensors under torchvision's names.

    Args:
        note: what else was done to them, for the log.
    """

    source: str
    tensors: Mapping[str, Tensor]
    note: str = ""


def published(source: str | Path, backbone: str | None = None) -> Published:
    """The weights in a file, or those of `backbone` by name (of torchvision, or `timm`)."""
    file = Path(source)
    if not file.suffix and backbone and not file.exists():
        return Published(str(source), _fetched(str(source), backbone))
    state = _read(file)
    named = torchvision_names(state, str(file))
    if transreid(state):
        return Published(str(file), for_other_pixels(named, *HALF), "for pixels of mean 0.5, as TransReID's are")
    return Published(str(file), named)


def _numpy_scalars() -> list[Any]:
    """What a number of numpy is made of in a file: training programs save their best result as one."""
    scalar = np.float64(0).__reduce__()[0]  # moved between numpy's modules
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [np.dtype, *kinds, *((scalar, f"{module}.scalar") for module in modules)]


def _read(file: Path) -> Mapping[str, Tensor]:
    """The state dict in a file, as it is called there."""
    if not file.is_file():
        raise UserError(f"{file}: no such weights file")
    with warnings.catch_warnings(record=True) as said, torch.serialization.safe_globals(_numpy_scalars()):
        warnings.simplefilter("always")
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged or unsafe file
            remarks = " ".join(str(one.message) for one in said)
            raise UserError(f"{file}: {_reason(error, remarks, file)}") from error
    while isinstance(state, Mapping):
        inner = next((state[key] for key in NESTED if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    found = dict(state) if isinstance(state, Mapping) else {}
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors or any(isinstance(value, Mapping) for value in found.values()):
        keys = ", ".join(str(key) for key in list(found)[:5]) or type(state).__name__
        raise UserError(f"{file}: expected a mapping of names to tensors, by itself or as {NESTED[0]}, found {keys}")
    return tensors


def _reason(error: Exception, remarks: str, file: Path) -> str:
    """Why torch did not read a file: what it holds beside tensors, how it was written, or that it is no such file."""
    text = str(error)
    whole = f"import torch; m = torch.load('{file.name}', weights_only=False); torch.save("
    if found := re.search(r"(?:GLOBAL|Unsupported class) ([A-Za-z_][\w.]*)", text):
        return (
            f"holds a Python object ({found[1]}), which is never made here; where you trust the file, keep its tensors:"
            f" {whole}m.state_dict() if hasattr(m, 'state_dict') else m['state_dict'], 'tensors.pth')"
        )
    if "operand" in text and (found := re.search(r"pickle protocol ([45])\b", remarks)):
        return (
            f"was written with pickle protocol {found[1]}, of which torch reads no tensors alone; where you trust the"
            f" file, write it anew: {whole}m, 'tensors.pth')"
        )
    cause = text.split("WeightsUnpickler error:")[-1].strip()  # after advice that is not for the user
    sentence = re.split(r"\.\s|\n", cause)[0]
    return f"not a PyTorch state dict ({sentence or type(error).__name__})"


def _fetched(name: str, backbone: str) -> Mapping[str, Tensor]:
    """Published weights by name; they are kept in torch's (or timm's) own cache."""
    if name == "timm":
        return _from_timm(backbone)
    known = get_model_weights(backbone).__members__ if backbone in list_models() else {}
    if name not in known:
        allowed = ", ".join([*known, *(["timm"] if backbone in TIMM_MODELS else [])])
        raise UserError(
            f"weights: found '{name}', allowed: a file, the folder of a run"
            + (f", or for {backbone}: {allowed}" * bool(allowed))
        )
    try:
        state = torch.hub.load_state_dict_from_url(known[name].url, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, a proxy, a damaged download
        where = f"cannot be fetched from {known[name].url} ({error}); download it and give --weights FILE"
        raise UserError(f"weights: {name}: {where}") from error
    return torchvision_names(state, name)


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
        return for_other_pixels(torchvision_names(model.state_dict(), "timm"), known["mean"], known["std"])
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
