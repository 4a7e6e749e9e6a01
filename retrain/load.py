"""A trained network back from its run folder, without its data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dnas.data.hashes import content_hashes
from dnas.data.images import Images, decode
from dnas.data.layouts import load_data
from dnas.data.protocol import Cameras
from dnas.data.splits import ReIDData, Split
from dnas.errors import UserError
from dnas.eval.embed import embed
from dnas.nn.network import Network
from dnas.nn.stages import Stages
from dnas.run.device import Device, pick_device
from dnas.run.folder import RunFolder
from dnas.run.paths import check_there
from dnas.task import pick_task
from dnas.task.task import Needs, Task
from retrain.config import RetrainConfig
from retrain.models import Model, pick_model, stored_config


@dataclass(frozen=True)
class TrainedRun:
    """A network with what it was trained on and how."""

    folder: RunFolder
    config: RetrainConfig
    model: Model
    network: Network

    def data(self, root: str | None = None, tested: bool = True, cameras: Cameras | None = None) -> ReIDData:
        """The run's own data set, wherever it is now, or another one.

        Args:
            root: another data set; the run's own without.
            tested: whether query and gallery are needed.
            cameras: see `dnas.data.layouts.load_data`; as the run was measured without.

        Raises:
            UserError: its own is not there any more, or is not what it was.
        """
        config = self.config
        if config.task != "reid":
            raise UserError(f"{self.folder.path}: a run of task {config.task}; this is for task reid")
        if root is None:
            check_there(config.data, self.folder.bases)
        found = load_data(
            root or config.data,
            None if root else config.test_on,
            for_training=False,
            tested=tested,
            on_bad_image=config.input.on_bad_image,
            cameras=cameras or config.cameras,
        )
        if root is None and not self.trained_on(found):
            raise UserError(
                f"{self.folder.path}: {config.data} is not the data set that the run was trained on (data.json);"
                " if it is meant, say so: --data ROOT"
            )
        return found

    def task(self, root: str | None = None) -> Task:
        """The run's task on its own data set, or on another one, with its test set alone.

        Raises:
            UserError: its own is not there any more, or is not what it was.
        """
        config, x = self.config, self.model.input
        if root is None:
            check_there(config.data, self.folder.bases)
        channels = self.network.classifier.weight.shape[1]
        device = self.network.classifier.weight.device
        stages = Stages.of(self.model.spec, x).channels
        needs = Needs(x.height, x.width, channels, device, trained=False, stages=stages)
        found = pick_task(config.task)(replace(config, data=root or config.data), needs)
        before = self.folder.json("data.json")
        if root is None and before.get("sha256") != found.fingerprint["sha256"]:
            raise UserError(
                f"{self.folder.path}: {config.data} is not the data set that the run was trained on (data.json);"
                " if it is meant, say so: --data ROOT"
            )
        known, there = before.get("classes"), found.fingerprint.get("classes")
        if isinstance(known, list) and known != there:  # the network's outputs are numbered by them
            raise UserError(
                f"data: {root}: found the classes {_some(there)}, allowed: those that the network was trained on,"
                f" {_some(known)}"
            )
        return found

    def has_seen(self, split: Split) -> bool:
        """Whether the network was trained on any of these images, or on other names of the same content.

        Raises:
            UserError: its training data are not where they were: nobody can say.
        """
        own = self.data(tested=False).train
        return not {*content_hashes(own.files)}.isdisjoint(content_hashes(split.files))

    def trained_on(self, data: ReIDData) -> bool:
        """Whether these are the images that the run was trained (and tested) on: the fingerprint decides."""
        before = self.folder.json("data.json")
        return isinstance(before, dict) and before.get("sha256") == data.fingerprint()["sha256"]

    def decode(self, split: Split) -> Images:
        """The images of a split at the network's input size."""
        return decode(split, self.model.input.height, self.model.input.width)

    def embed(self, images: Images) -> Tensor:
        """Unit vectors (N, D) of decoded images."""
        return embed(self.network, images)


def _some(names: Any) -> str:
    """The first few of a list in words."""
    shown = [str(name) for name in names or ()]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


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
    network = pick_task(config.task).network(model.spec, model.input, len(weight))
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
