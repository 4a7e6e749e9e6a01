"""Several processes that die, are told to stop, and are started again by torchrun."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from dnas.cli import main
from dnas.run.folder import RunFolder
from dnas.run.position import Pauses
from tests.ranks import leave
from tests.run.test_resume import results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the ranks in /proc"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SMALL = ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.identities", "2"]
SMALL += ["--optim.images", "2", "--holdout", "0.4", "--space", "tiny_reid_dcs", "--checkpoint.every_steps", "1"]


def processes_of(run: "subprocess.Popen[str]") -> dict[int, int]:
    """Rank -> process number of torchrun's children."""
    found = {}
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    for child in children:
        words = dict(
            entry.split("=", 1) for entry in Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in entry
        )
        if "RANK" in words:
            found[int(words["RANK"])] = int(child)
    return found


def search(pedestrians: Path, out: Path, epochs: int, *more: str) -> "subprocess.Popen[str]":
    words = [*SMALL, "--data", str(pedestrians), "--out", str(out), "--optim.epochs", str(epochs)]
    return subprocess.Popen(
        [*TORCHRUN, *more, "-m", "dnas.cli", "search", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def once(run: "subprocess.Popen[str]", there: Callable[[], bool]) -> None:
    """Wait until something is so, or the run has ended."""
    while not there() and run.poll() is None:
        time.sleep(0.05)


def kill_one(run: "subprocess.Popen[str]", out: Path) -> tuple[str, float]:
    """Kill a rank after the first epoch; what is said then, and the seconds until all have said it."""
    once(run, lambda: len(RunFolder(out).rows()) > 0)
    os.kill(processes_of(run)[1], signal.SIGKILL)
    start = time.monotonic()
    assert run.stderr is not None
    return run.stderr.read(), time.monotonic() - start


def test_a_rank_that_dies_ends_the_others(pedestrians: Path, tmp_path: Path) -> None:
    """Soon, with a line that says why."""
    with search(pedestrians, tmp_path / "run", 400) as run:
        said, seconds = kill_one(run, tmp_path / "run")
        assert run.wait(120) == 1, said
    assert seconds < 60
    assert "dnas: rank 0: another process of this run has ended" in said
    assert "dnas/run/loop.py" not in said  # the only traceback is that of torchrun itself


def _asked_while_judging(rank: int, folder: str, data: str) -> None:
    """A search; and one in which the second rank is asked to stop when its third pair of networks is judged."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    words = ["--data", data, "--optim.epochs", "1", "--arch.prior", "none", "--arch.samples", "21"]
    assert main(["search", *SMALL, *words, "--out", f"{folder}/whole"]) == 0
    between_looks, looks = Pauses.between_looks, itertools.count(1)

    def look(self: Pauses) -> None:
        if next(looks) == 3 and rank == 1:
            self.stop.signal = signal.SIGTERM
        between_looks(self)

    Pauses.between_looks = look  # type: ignore[method-assign]
    assert main(["search", *SMALL, *words, "--out", f"{folder}/run"]) == 128 + signal.SIGTERM
    assert next(looks) == 4
    assert main(["search", "--resume", f"{folder}/run"]) == 0
    assert next(looks) == 4 + 1 + 11
    leave()


def test_all_ranks_stop_between_the_networks_they_judge(pedestrians: Path, tmp_path: Path) -> None:
    """And go on as if nothing was; the last pair is one network."""
    multiprocessing.spawn(_asked_while_judging, (str(tmp_path), str(pedestrians)), nprocs=2)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.long
def test_a_rank_that_dies_begins_again(pedestrians: Path, tmp_path: Path) -> None:
    """With --max-restarts: as if nothing was."""
    assert search(pedestrians, tmp_path / "whole", 3).wait() == 0
    with search(pedestrians, tmp_path / "run", 3, "--max-restarts", "1") as run:
        said, _ = kill_one(run, tmp_path / "run")
        assert run.wait(120) == 0, said
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.long
def test_a_signal_stops_all_ranks_where_they_save(pedestrians: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with search(pedestrians, out, 400) as run:
        once(run, lambda: len(RunFolder(out).rows()) > 0)
        run.send_signal(signal.SIGTERM)
        assert run.stderr is not None
        said = run.stderr.read()
    assert said.count("dnas: interrupted; what a search or retraining wrote is whole: go on with --resume DIR") == 2
    state = RunFolder(out).load()
    assert 0 < state["position"]["epoch"] < 400
