"""Weights that a searched network had in its supernet, and the hold-out that goes with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dnas.errors import UserError
from dnas.nn.network import Network
from dnas.run.files import load_tensors
from dnas.space.genotype import read_genotype
from dnas.task.task import Task
from retrain.config import RetrainConfig
from retrain.models import genotype_path


def load_inherited(net: Network, file: Path) -> None:
    """Weights from the supernet; the classifier is new, the search saw fewer identities.

    Raises:
        UserError: no such file, or weights of another network.
    """
    if not file.is_file():
        raise UserError(f"inherit: {file}: no such file; give --genotype the folder of a finished search")
    state = {name: value for name, value in load_tensors(file).items() if not str(name).startswith("classifier.")}
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
        raise UserError(f"{file}: expected a mapping of names to tensors")
    try:
        missing = set(net.load_state_dict(state, strict=False).missing_keys) - {"classifier.weight", "classifier.bias"}
    except RuntimeError as error:
        raise UserError(f"{file}: does not fit this network ({str(error).splitlines()[-1].strip()})") from error
    if missing:
        raise UserError(f"{file}: does not fit this network, entry '{min(missing)}' is missing")


def with_its_holdout(config: RetrainConfig) -> RetrainConfig:
    """The configuration with the hold-out of the search: inherited weights have been trained on everything else.

    Raises:
        UserError: the genotype does not say what its search held out.
    """
    if not config.inherit or config.holdout == 0:
        return config
    held = _holdout(config)
    return replace(config, holdout=float(held["share"]), holdout_seed=int(held["seed"]))


def check_holdout(config: RetrainConfig, task: Task) -> None:
    """Refuse to judge inherited weights on what they were trained on.

    Raises:
        UserError: other images are held out than in the search (other data, or cameras that say otherwise).
    """
    if not config.inherit or config.holdout == 0:
        return
    expected, found = _holdout(config).get("sha256"), task.holdout.get("sha256")
    if expected != found:
        raise UserError(
            f"inherit: held out: found {found}, the search held out {expected}: the weights have seen"
            " some of it (other data or cameras); allowed: the data of the search, or --holdout 0"
        )


def _holdout(config: RetrainConfig) -> dict[str, Any]:
    assert config.genotype is not None
    file = genotype_path(config.genotype)
    held = read_genotype(file).search.get("holdout")
    numbers = isinstance(held, dict) and all(isinstance(held.get(key), int | float) for key in ("share", "seed"))
    if not isinstance(held, dict) or not numbers:
        raise UserError(
            f"inherit: {file}: does not say what its search held out (an older version wrote it); search again,"
            " or --holdout 0"
        )
    return held
