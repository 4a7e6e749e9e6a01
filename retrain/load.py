"""A trained network back from its run folder, without its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dnas.data.images import Images, decode
from dnas.data.splits import Split
from dnas.errors import UserError
from dnas.eval.embed import embed
from dnas.nn.reid_net import ReIDNet
from dnas.run.device import Device, pick_device
from dnas.run.folder import RunFolder
from retrain.config import RetrainConfig
from retrain.models import Model, pick_model, stored_config


@dataclass(frozen=True)
class TrainedRun:
    """A network with what it was trained on and how."""

    folder: RunFolder
    config: RetrainConfig
    model: Model
    network: ReIDNet

    def decode(self, split: Split) -> Images:
        """The images of a split at the network's input size."""
        return decode(split, self.model.input.height, self.model.input.width)

    def embed(self, images: Images) -> Tensor:
        """Unit vectors (N, D) of decoded images."""
        return embed(self.network, images)


def load(path: str | Path, device: Device = "auto", space: str | None = None) -> TrainedRun:
    """Load a retraining: `run = load("runs/x")`, `run.embed(run.decode(split))`.

    Args:
        space: file of the space, if the network was searched in one of your own.

    Raises:
        UserError: not a retraining, no checkpoint yet, or a damaged one.
    """
    folder = trained_folder(path)
    config = stored_config(folder, space)
    model = pick_model(config)
    found = folder.load()
    state = found.get("net")
    if isinstance(averaged := found.get("ema"), dict):  # what was evaluated
        state = averaged.get("net")
    state = state if isinstance(state, dict) else {}
    weight = state.get("classifier.weight")
    # contiguous: its length is then no larger than the file
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_contiguous():
        raise UserError(f"{folder.path}: its checkpoint holds no network")
    network = ReIDNet(model.spec, model.input, len(weight))
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{folder.path}: its checkpoint does not fit its network ({reason})") from error
    network.to(pick_device(device)).eval()
    return TrainedRun(folder, config, model, network)


def trained_folder(path: str | Path) -> RunFolder:
    """The folder of a retraining.

    Raises:
        UserError: it is none.
    """
    folder = RunFolder.open(path)
    if folder.verb() != "retrain":
        raise UserError(f"{folder.path}: expected a retraining, found a {folder.verb()}: retrain its genotype first")
    return folder
