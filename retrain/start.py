"""What a network starts from before it is trained: published weights, or those of one's own run with another head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dnas.errors import UserError
from dnas.nn.network import Network
from dnas.nn.pretrained import Loaded, load_weights
from dnas.nn.vit import PatchTokensModule, resized_positions
from retrain.config import RetrainConfig
from retrain.load import load, trained_folder
from retrain.models import pick_model, stored_config

NETWORK = ("genotype", "backbone", "attention", "backbone_width", "backbone_small", "backbone_stride")
"""Settings that say which network it is."""
HEAD = "classifier."
"""Entries of the identities of one training set."""


def same_network(config: RetrainConfig) -> RetrainConfig:
    """The settings with a network in them: where none is named, that of the run whose weights it starts from.

    Raises:
        UserError: no network named, and no run to take it from; or settings of a backbone, and none named.
    """
    for name in ("backbone_width", "backbone_small", "backbone_stride"):
        if config.backbone is None and getattr(config, name) != getattr(RetrainConfig, name):
            raise UserError(f"{name}: found {getattr(config, name)}, allowed with --backbone: it says which network")
    if config.backbone is not None or config.genotype is not None:
        return config
    assert config.weights is not None
    if not Path(config.weights).is_dir():
        raise UserError(
            f"weights: {config.weights}: is no folder of a run; say which network: --backbone NAME (or --genotype FILE)"
        )
    folder = trained_folder(config.weights)
    run = stored_config(folder, config.space)
    x = pick_model(run).input
    size = replace(config.input, height=config.input.height or x.height, width=config.input.width or x.width)
    return replace(config, **{name: getattr(run, name) for name in NETWORK}, input=size)


def start(net: Network, config: RetrainConfig) -> Loaded | None:
    """Load what `config.weights` names into a new network; none where it starts from scratch.

    Raises:
        UserError: nothing there, or weights of another network.
    """
    if config.weights is None:
        return None
    if Path(config.weights).is_dir():
        return _of_run(net, config)
    if config.backbone is None:
        raise UserError(
            f"weights: {config.weights}: a file is for a fixed --backbone; a searched network takes the folder of a run"
        )
    return load_weights(net, config.weights, config.backbone, config.weights_grid)


def _of_run(net: Network, config: RetrainConfig) -> Loaded:
    """Everything but the classifier, which knows the identities of that run; positions fitted to this input size."""
    assert config.weights is not None
    source = config.weights
    trained = load(source, "cpu", config.space).network
    theirs, own = trained.state_dict(), net.state_dict()
    kept = {name: value for name, value in theirs.items() if not name.startswith(HEAD)}
    changed = _fit_positions(net, trained, kept)
    for name, value in own.items():
        if name.startswith(HEAD):
            continue
        if name not in kept:
            raise UserError(f"weights: {source}: is another network: entry '{name}' is missing")
        if kept[name].shape != value.shape:
            raise UserError(
                f"weights: {source}: is another network: entry '{name}' has shape {list(kept[name].shape)},"
                f" this one {list(value.shape)}"
            )
    left_out = tuple(name for name in theirs if name not in kept or name not in own)
    if strangers := [name for name in left_out if not name.startswith(HEAD)]:
        raise UserError(f"weights: {source}: is another network: entry '{strangers[0]}' has no place in this one")
    net.load_state_dict({**own, **kept})
    return Loaded(source, len(kept), left_out, changed)


def _fit_positions(net: Network, trained: Network, state: dict[str, Tensor]) -> tuple[str, ...]:
    """Resize the position embeddings of a vision transformer whose input has another size now."""
    changed = []
    old = dict(trained.named_modules())
    for name, part in net.named_modules():
        before = old.get(name)
        if isinstance(part, PatchTokensModule) and isinstance(before, PatchTokensModule) and part.grid != before.grid:
            entry = f"{name}.encoder.pos_embedding"
            state[entry] = resized_positions(state[entry], before.grid, part.grid)
            changed.append(part.said(before.grid))
    return tuple(changed)
