"""Kill searches and retrainings at random moments, go on, and compare with runs that nobody disturbed.

    python tools/kill_runs.py [--kills 200] [--json]

Small searches and retrainings on synthetic pedestrians, each killed (SIGKILL) again and again at a random moment and
continued with --resume until it ends. Compared byte for byte: metrics, genotype, summary, per-query results; and tensor
for tensor: weights, logits, optimisers, statistics. Keys: kills, differences. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnas.data.synthetic import SynthConfig, synthesise
from dnas.run.folder import RunFolder

SMALL = ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.epochs", "6"]
SMALL += ["--optim.identities", "3", "--optim.images", "2", "--checkpoint.every_steps", "2"]
RUNS = {
    "search": ["--holdout", "0.4", "--space", "tiny_reid_dcs", "--eval_every", "2"],
    "retrain": ["--backbone", "resnet18", "--backbone_width", "0.125", "--attention", "dcs", "--train.ema", "0.9"],
}
SAME = ("metrics.jsonl", "genotype.json", "summary.json", "per_query.npz", "config.yaml", "data.json")


def command(verb: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "dnas.cli", verb, *words]


def run_to_the_end(words: list[str], environment: dict[str, str]) -> float:
    """Seconds that it took."""
    start = time.perf_counter()
    subprocess.run(words, check=True, env=environment, capture_output=True)
    return time.perf_counter() - start


def killed_run(
    verb: str, words: list[str], out: Path, kills: int, took: float, rng: random.Random, environment: dict[str, str]
) -> int:
    """Start, kill and go on until `kills` kills have hit it or it has ended. Returns the kills."""
    hit = 0
    while hit < kills:
        there = (out / "config.yaml").exists()
        process = subprocess.Popen(
            command(verb, "--resume", str(out)) if there else words,
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(rng.uniform(0.5, 1.0) * took)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            hit += 1
        if process.returncode == 0:
            return hit
    subprocess.run(command(verb, "--resume", str(out)), check=True, env=environment, capture_output=True)
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
    states: list[dict[str, Any]] = [RunFolder(path).load() for path in (one, other)]
    return found + difference(*states, "checkpoint")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng, kills, found = random.Random(options.seed), 0, []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesise(SynthConfig(str(root / "data"), ids=10, cameras=3, images=4, height=32, width=16))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DNAS_CACHE": str(root / "cache")}
        whole: dict[str, float] = {}
        for verb, words in RUNS.items():
            all_words = [*words, *SMALL, "--data", str(root / "data")]
            whole[verb] = run_to_the_end(command(verb, *all_words, "--out", str(root / f"{verb}-whole")), environment)
        number = 0
        while kills < options.kills:
            verb = list(RUNS)[number % len(RUNS)]
            out = root / f"{verb}-{number}"
            words = command(verb, *RUNS[verb], *SMALL, "--data", str(root / "data"), "--out", str(out))
            most = min(options.kills - kills, 5)
            hit = killed_run(verb, words, out, most, whole[verb], rng, environment)
            kills, number = kills + hit, number + 1
            differing = differences(root / f"{verb}-whole", out)
            found += differing
            print(f"{verb}: {hit} kills, {len(differing)} differences {' '.join(differing[:5])}", flush=True)
    if options.json:
        print(json.dumps({"kills": kills, "differences": len(found)}))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
