"""The run folder: everything that compare and report show is read back from here.

    config.yaml  env.json  data.json  metrics.jsonl  timing.jsonl  checkpoints/{EPOCH-STEP-CHECKSUM,inherited}.pt
    genotype.json  cost.json  per_query.npz  summary.json  log.txt  tb/

metrics.jsonl holds only what a rerun reproduces; times go to timing.jsonl.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from filelock import FileLock, Timeout

from dnas.errors import UserError
from dnas.run import distributed
from dnas.run.checkpoints import checkpoints, load_checkpoint, save_checkpoint
from dnas.run.files import read_json, read_yaml, save_tensors, write_json, write_text
from dnas.run.live import Live
from dnas.run.paths import bases, started_in
from dnas.run.position import Position
from dnas.run.progress import errors
from dnas.version import own_version

CALIBRATION = "calibration.json"
"""Thresholds of a retraining, measured on people whom its network has not seen."""
INHERITED = "checkpoints/inherited.pt"
"""Weights of the searched network, from the supernet by slicing: in a search's folder, and copied by --inherit."""


class Resumable(Protocol):
    """What a run folder can put back to a checkpoint."""

    position: Position

    def restore(self, state: dict[str, Any]) -> None: ...


class RunFolder:
    """Reads and writes one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.live = Live(self.path)

    @staticmethod
    def create(
        path: str | Path, verb: str, config: object, data: dict[str, object], copies: Mapping[str, object]
    ) -> RunFolder:
        """Start a run in a new folder. In `locked`: of two that start at once only one may write.

        Args:
            copies: contents of JSON files that the run will need, by their names.

        Raises:
            UserError: a run is there already.
        """
        run = RunFolder(path)
        if run.config_file.exists():
            raise UserError(
                f"out: {run.path} holds a run already; choose another folder, or continue it with --resume {run.path}"
            )
        settings = as_yaml(config)
        try:
            write_json(run.path / "env.json", {"verb": verb, **environment(), "started_in": started_in(run.path)})
            write_json(run.path / "data.json", data)
            for name, content in copies.items():
                write_json(run.path / name, content)
            write_text(run.config_file, settings)  # last: now it is a run
        except OSError as error:
            raise UserError(f"out: {run.path} cannot be written ({error.strerror})") from error
        return run

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """An existing run.

        Raises:
            UserError: no run there.
        """
        run = RunFolder(path)
        for file in (run.config_file, run.path / "env.json"):
            if not file.is_file():
                raise UserError(f"{run.path}: not a run folder (no {file.name} in it)")
        return run

    def reconfigure(self, config: object) -> None:
        """Go on with other settings: the old ones stay beside the new ones, as config.yaml.1, .2, ..."""
        number = 1 + sum(1 for _ in self.path.glob("config.yaml.*"))
        write_text(self.path / f"config.yaml.{number}", self.config_file.read_text("utf-8"))
        write_text(self.config_file, as_yaml(config))

    @property
    def bases(self) -> list[Path]:
        """Folders from which the files are looked up that its settings name."""
        return bases(self.path, self.json("env.json").get("started_in"))

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def genotype_file(self) -> Path:
        return self.path / "genotype.json"

    def config(self) -> dict[str, Any]:
        content = read_yaml(self.config_file)
        if not isinstance(content, dict):
            raise UserError(f"{self.config_file}: expected keys and values, found {type(content).__name__}")
        return content

    def verb(self) -> str:
        """What made this run: search or retrain."""
        return str(self.json("env.json").get("verb"))

    def json(self, name: str) -> Any:
        return read_json(self.path / name)

    def write(self, name: str, content: object) -> None:
        write_json(self.path / name, content)

    def log(self, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        """Append one epoch to metrics.jsonl and timing.jsonl (both carry the epoch), and to the events for watching."""
        for name, row in (("metrics.jsonl", metrics), ("timing.jsonl", {"epoch": metrics["epoch"], **timing})):
            with (self.path / name).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        self.live.epoch(metrics, timing)

    def rows(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """Every epoch that was logged. A last line cut short by a kill is dropped."""
        file = self.path / name
        if not file.exists():
            return []
        found = []
        for line in file.read_text("utf-8", "replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
                break
            found.append(row)
        return found

    def rewind(self, epoch: int) -> None:
        """Forget logged epochs from `epoch` on: they will be run again."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            kept = [row for row in self.rows(name) if row["epoch"] < epoch]
            write_text(self.path / name, "".join(json.dumps(row) + "\n" for row in kept))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Refuse a second process in this folder while this lasts. A process that dies lets go.

        Raises:
            UserError: another process has it, or nothing can be written there.
        """
        if distributed.rank() > 0:
            yield
            return
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise UserError(f"{self.path}: another process is running there") from None
        except OSError as error:
            raise UserError(f"out: {self.path} cannot be written ({error.strerror})") from error
        try:
            yield
        finally:
            lock.release()

    def save(self, state: dict[str, Any], position: Position, keep: int) -> None:
        """Write a checkpoint, and keep the last few."""
        save_checkpoint(self.path / "checkpoints", state, position.epoch, position.step, keep)

    def load(self) -> dict[str, Any]:
        """The newest checkpoint that is whole.

        Raises:
            UserError: there is none.
        """
        found = load_checkpoint(self.path / "checkpoints")
        if found is None:
            raise UserError(f"{self.path}: no checkpoint yet")
        state, damaged = found
        for file in damaged:
            errors.print(f"dnas: {file}: damaged (checksum), taking the one before", markup=False)
        return state

    def save_inherited(self, state: dict[str, Any]) -> None:
        """The weights that a searched network has from its supernet."""
        save_tensors(self.path / INHERITED, state)

    def continue_with(self, state: Resumable, data: dict[str, object], changed: object = None) -> None:
        """Put a run back to its newest checkpoint and forget what was logged since.

        Args:
            changed: other settings to go on with, kept from now on.

        Raises:
            UserError: the data changed since, or the checkpoint is damaged or of something else.
        """
        before = self.json("data.json")
        if isinstance(before, dict) and before.get("format") != data["format"]:
            found = before.get("format", "dnas-data/1")
            raise UserError(
                f"{self.path}: data.json: its fingerprint is of format {found}, this version makes {data['format']};"
                " the run cannot go on with it"
            )
        if not isinstance(before, dict) or before.get("sha256") != data["sha256"]:
            raise UserError(f"{self.path}: the data set has changed since this run began (data.json); it cannot go on")
        if checkpoints(self.path / "checkpoints"):
            try:
                state.restore(self.load())
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
                raise UserError(f"{self.path}: its checkpoint does not fit this run ({reason})") from error
        if distributed.rank() == 0:
            self.rewind(state.position.epoch)
            if changed is not None:
                self.reconfigure(changed)
        distributed.wait_for_all()


def as_yaml(config: object) -> str:
    """The settings of a dataclass, paths as text."""
    assert is_dataclass(config)
    assert not isinstance(config, type)
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, Path) else value


def environment() -> dict[str, object]:
    """Versions and machine, without names of users, hosts or paths."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "dnas-reid": own_version(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "platform": platform.system(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "cuda": cuda,
    }
