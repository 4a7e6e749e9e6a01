"""Retrainings of an experiment, side by side: what is finished is kept, what was interrupted goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from dnas.errors import UserError
from dnas.run.folder import RunFolder
from retrain.config import RetrainConfig
from retrain.train import resume, retrain


@dataclass(frozen=True)
class Job:
    """One run that is to be there."""

    config: RetrainConfig

    @property
    def done(self) -> bool:
        return (Path(self.config.out) / "summary.json").exists()

    def run(self) -> None:
        """Run or go on, unless another worker does."""
        folder = RunFolder(self.config.out)
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder.path.with_name(folder.path.name + ".lock"), timeout=0):
                if not self.done:
                    resume(self.config.out) if folder.config_file.exists() else retrain(self.config)
        except Timeout:
            return


def work(jobs: Sequence[Job]) -> None:
    torch.set_num_threads(1)
    for job in jobs:
        if not job.done:
            job.run()


def work_all(jobs: list[Job], workers: int) -> None:
    """All jobs by several processes; a job that another has begun is passed over."""
    processes = [get_context("spawn").Process(target=work, args=(jobs,)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    missing = [job.config.out for job in jobs if not job.done]
    if missing:
        raise UserError(f"{len(missing)} of {len(jobs)} runs are not finished, the first is {missing[0]}; run it again")
