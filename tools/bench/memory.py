"""What a training step on the CPU gains by keeping its memory (`dnas.run.memory`).

    python tools/bench/memory.py [--rounds 3] [--json]

How memory is allocated is a matter of the whole process: each measurement is a process of its own, both ways in turn.
MobileNetV2 at 128x64, batches of 64, as it is and with the stem's resolution kept. Keys: kept_over_default (seconds of
a step, the median of the rounds' ratios), kept_over_default_small, memory_over_default, memory_over_default_small (the
largest that the process held).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median

from rich.console import Console
from rich.table import Table

STEPS = """
import resource, time, torch
from dnas.nn.backbones import backbone
from dnas.nn.reid_net import ReIDNet
from dnas.run.memory import keep_blocks
from dnas.space.spec import image

if {keep}:
    assert keep_blocks()
torch.set_num_threads(1)
net = ReIDNet(backbone("mobilenet_v2", small={small}), image(128, 64), 41).to(memory_format=torch.channels_last)
images = torch.randn(64, 3, 128, 64).contiguous(memory_format=torch.channels_last)
seconds = []
for _ in range(5):
    start = time.process_time()
    net(images)[0].square().mean().backward()
    net.zero_grad()
    seconds.append(time.process_time() - start)
print(sorted(seconds[1:])[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measured(keep: bool, small: bool) -> tuple[float, float]:
    """Processor seconds of a step, kilobytes of the process."""
    words = [sys.executable, "-c", STEPS.format(keep=keep, small=small)]
    seconds, held = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(held)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = Table("network", "default (s)", "kept (s)", "kept / default", "memory, kept / default")
    keys: dict[str, float] = {}
    for small, name in ((False, ""), (True, "_small")):
        rounds = [(measured(False, small), measured(True, small)) for _ in range(options.rounds)]
        for key, which in (("kept", 0), ("memory", 1)):
            keys[f"{key}_over_default{name}"] = round(median(kept[which] / plain[which] for plain, kept in rounds), 3)
        middle = [f"{median(both[way][0] for both in rounds):.2f}" for way in (0, 1)]
        ratios = [f"{keys[f'{key}_over_default{name}']:.2f}" for key in ("kept", "memory")]
        table.add_row("MobileNetV2" + (", stem's resolution kept" if small else ""), *middle, *ratios)
    Console(width=100).print(table)
    if options.json:
        print(json.dumps(keys))


if __name__ == "__main__":
    main()
