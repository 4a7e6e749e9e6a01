"""A training step for person re-identification against the bare forward and backward pass of the same network.

    python tools/bench/train.py [--backbone resnet50] [--batch 32] [--rounds 8] [--amp bf16] [--compile] [--json]

The step: images from memory, augmentation, network, identity + triplet + information bottleneck, backward, Adam. Bare:
the network's sum of logits on the same inputs, and backward. Key train_overhead: seconds over seconds, less one.
On a GPU also images per second with the input on the device.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from timing import interleaved, interval

from dnas.data.augment import Augmenter, InputConfig, draw
from dnas.data.images import Images
from dnas.loss.objective import LossConfig, Objective
from dnas.nn.backbones import BACKBONES, backbone
from dnas.nn.reid_net import ReIDNet
from dnas.run.device import pick_device
from dnas.run.schedules import OptimConfig
from dnas.run.step import HALF, Stepper, TrainConfig
from dnas.space.spec import image

HEIGHT, WIDTH, IDENTITIES, IMAGES = 256, 128, 751, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", default="resnet50", choices=list(BACKBONES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--amp", default="none", choices=("none", "bf16", "fp16"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = pick_device(options.device)
    x = image(HEIGHT, WIDTH)
    spec = backbone(options.backbone)
    net = ReIDNet(spec, x, IDENTITIES)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = Objective(LossConfig(eta_warmup=0), IDENTITIES, spec.out(x).channels.size).to(device)
    config = TrainConfig(amp=options.amp, compile=options.compile)
    step = Stepper(net, objective, OptimConfig(epochs=1000, lr=1e-6), config, 4)
    rng = np.random.default_rng(0)
    count = 4 * options.batch
    pixels = torch.from_numpy(rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8))
    pids = np.arange(count) // IMAGES
    images = Images(pixels, torch.arange(count), torch.from_numpy(pids), pids, pids)
    augmenter, generator = Augmenter(InputConfig(pad=10)), torch.Generator()
    fixed = augmenter(images.take(torch.arange(options.batch), device), draw(options.batch, generator)).clone()
    net.train()

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def whole() -> None:
        indices = rng.permutation(count // IMAGES)[: options.batch // IMAGES, None] * IMAGES + np.arange(IMAGES)
        for batch in images.stream([indices.reshape(-1)], device):
            step(augmenter(batch, draw(options.batch, generator)), batch.labels, 1.0, last=False)
        wait()

    def bare() -> None:
        with torch.autocast(device.type, HALF.get(options.amp), enabled=options.amp != "none"):
            output = step.run(fixed)
        output.logits_BC.float().sum().backward()
        net.zero_grad(set_to_none=True)
        wait()

    seconds = interleaved({"whole": whole, "bare": bare, "bare again": bare}, options.rounds)
    middle, low, high = interval(seconds["whole"], seconds["bare"])
    control = interval(seconds["bare again"], seconds["bare"])
    speeds = {name: options.batch / float(np.median(found)) for name, found in seconds.items()}
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table("what", "images/s", title=f"{options.backbone}, batch {options.batch}, amp {options.amp}, {name}")
    for variant, speed in speeds.items():
        table.add_row(variant, f"{speed:.1f}")
    for title, found in (("overhead of the whole step", (middle, low, high)), ("control: bare over bare", control)):
        share, least, most = (100 * (value - 1) for value in found)
        table.add_row(title, f"{share:+.1f} % [{least:+.1f}, {most:+.1f}]")
    Console().print(table)
    if options.json:
        result: dict[str, Any] = {"train_overhead": middle - 1, "low": low - 1, "high": high - 1}
        print(json.dumps({**result, "control": control[0] - 1, "images_per_s": speeds["whole"], "device": name}))


if __name__ == "__main__":
    main()
