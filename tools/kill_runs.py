"""Kill searches and retrainings at random moments, go on, and compare with runs that nobody disturbed.

    python tools/kill_runs.py [--kills 200] [--json]

Small searches and retrainings on synthetic pedestrians, each killed (SIGKILL) again and again at a random moment and
continued with --resume until it ends. Compared byte for byte: metrics, genotype, summary, per-query results; and tensor
for tensor: weights, logits, optimisers, statistics. Keys: kills, differences. Exit code 1 where anything differs. Needs
fork (Linux, macOS).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import torch

import dnas.search.search  # noqa: F401  (what the copies would import, each for itself)
import retrain.train  # noqa: F401
from dnas.cli import main as main_of_dnas
from dnas.run.folder import RunFolder

SMALL = ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.epochs", "6"]
SMALL += ["--optim.identities", "3", "--optim.images", "2", "--checkpoint.every_steps", "2"]
RUNS = {
    "search": ["--holdout", "0.4", "--space", "tiny_reid_dcs", "--eval_every", "2"],
    "retrain": ["--backbone", "resnet18", "--backbone_width", "0.125", "--attention", "dcs", "--train.ema", "0.9"],
}
SAME = ("metrics.jsonl", "genotype.json", "summary.json", "per_query.npz", "config.yaml", "data.json")
MOST = 5
"""Kills of one run, before it may end."""


def start(words: list[str]) -> int:
    """A process of its own that runs a command of `dnas`; a copy of this one, so that nothing is imported again."""
    process = os.fork()
    if process == 0:
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        code = 70
        try:
            code = main_of_dnas(words)
        except BaseException:  # it must not go on as the parent would
            Path(tempfile.gettempdir(), f"kill_runs.{os.getpid()}.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return process


def ended(process: int, within: float) -> int | None:
    """The exit code of a process (negative: the signal), or none if it still runs after so many seconds."""
    deadline = time.perf_counter() + within
    while time.perf_counter() < deadline:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def run_to_the_end(words: list[str]) -> float:
    """Seconds that it took."""
    begun = time.perf_counter()
    code = ended(start(words), 600)
    if code != 0:
        raise SystemExit(f"dnas {' '.join(words)}: exit code {code}")
    return time.perf_counter() - begun


def killed_run(verb: str, words: list[str], out: Path, kills: int, took: float, rng: random.Random) -> int:
    """Start, kill and go on until `kills` kills have hit it or it has ended. Returns the kills."""
    hit = 0
    while hit < kills:
        there = (out / "config.yaml").exists()
        process = start([verb, "--resume", str(out)] if there else words)
        code = ended(process, rng.uniform(0, took))
        if code == 0:
            return hit
        if code is not None:
            raise SystemExit(f"{out}: {verb} ended by itself with code {code}")
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        hit += 1
    there = (out / "config.yaml").exists()
    run_to_the_end([verb, "--resume", str(out)] if there else words)
    return hit


def difference(a: object, b: object, where: str) -> list[str]:
    """Places where two states differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted({*a, *b}, key=str)
        return [found for key in keys for found in difference(a.get(key), b.get(key), f"{where}.{key}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point()) else [where]
    return [] if a == b or (a != a and b != b) else [where]


def differences(one: Path, other: Path) -> list[str]:
    """Files and tensors in which two runs differ; the folders' own names are left out."""
    found = []
    for name in SAME:
        files = [file for file in (one / name, other / name) if file.exists()]
        contents = {file.read_bytes().replace(str(file.parent).encode(), b"") for file in files}
        if len(files) == 1 or len(contents) > 1:
            found.append(name)
    return found + difference(RunFolder(one).load(), RunFolder(other).load(), "checkpoint")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng, kills, found, number = random.Random(options.seed), 0, [], 0
    torch.set_num_threads(1)  # this process is copied: it must have no threads
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["DNAS_CACHE"] = str(root / "cache")
        size = ["--ids", "10", "--cameras", "3", "--images", "4", "--height", "32", "--width", "16"]
        run_to_the_end(["data", "synth", str(root / "data"), *size])
        words = {verb: [verb, *own, *SMALL, "--data", str(root / "data")] for verb, own in RUNS.items()}
        took = {verb: run_to_the_end([*words[verb], "--out", str(root / f"{verb}-whole")]) for verb in RUNS}
        while kills < options.kills:
            verb = list(RUNS)[number % len(RUNS)]
            out = root / f"{verb}-{number}"
            most = min(options.kills - kills, MOST)
            hit = killed_run(verb, [*words[verb], "--out", str(out)], out, most, took[verb], rng)
            kills, number = kills + hit, number + 1
            differing = differences(root / f"{verb}-whole", out)
            found += differing
            print(f"{verb}: {hit} kills, {len(differing)} differences {' '.join(differing[:5])}", flush=True)
    if options.json:
        print(json.dumps({"kills": kills, "differences": len(found)}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
