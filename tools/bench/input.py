"""The cached batch pipeline against PIL and torchvision one image at a time, as torchreid does it, on one core.

    pip install -e .[bench]
    python tools/bench/input.py [--rounds 5] [--json]

Reference: torchreid's own training transforms for every image of every epoch: decode, resize to 256 x 128, flip,
enlarge by an eighth and crop (half of the time), to tensor, normalise, erase. Ours: gather from the cache, pad and
crop, flip, erase, normalise, in batches. Keys: input_ratio, images per second, ours over theirs (null without
torchreid); torchvision_ratio, over the same steps with torchvision's erasing and cropping. The same pixels without
randomness are checked first.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import interleaved, interval
from torchvision import transforms

from dnas.data.augment import Augmenter, InputConfig, draw
from dnas.data.images import decode
from dnas.data.splits import Split
from dnas.imagenet import MEAN, STD

COUNT, BATCH, HEIGHT, WIDTH = 512, 64, 256, 128


def pictures(folder: Path) -> Split:
    """JPEG files of the size of Market-1501's, of smooth noise (as costly to decode as photographs)."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(COUNT):
        small = Image.fromarray(rng.integers(0, 256, (32, 16, 3), np.uint8))
        file = folder / f"{number:04d}.jpg"
        small.resize((64, 128), Image.Resampling.BICUBIC).save(file, quality=90)
        rows.append((file, number % 16 + 1, number % 6))
    return Split.of(rows)


def torchreid() -> Callable[[Image.Image], torch.Tensor] | None:
    """Its own transforms, if it is installed (pip install -e .[bench])."""
    try:
        from pyppbox_torchreid.data.transforms import build_transforms
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        train, _ = build_transforms(HEIGHT, WIDTH, transforms=["random_flip", "random_crop", "random_erase"])
    found: Callable[[Image.Image], torch.Tensor] = train
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DNAS_CACHE"] = f"{folder}/cache"
        split = pictures(Path(folder))
        images = decode(split, HEIGHT, WIDTH)
        config, generator = InputConfig(pad=10), torch.Generator()
        plain = [
            transforms.Resize((HEIGHT, WIDTH)),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        enlarged = (HEIGHT * 9 // 8, WIDTH * 9 // 8)
        random = [
            transforms.Resize((HEIGHT, WIDTH)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.Resize(enlarged), transforms.RandomCrop((HEIGHT, WIDTH))]),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            transforms.RandomErasing(0.5, (0.02, 0.4), (0.3, 1 / 0.3)),
        ]

        def one_by_one(steps: list[object], files: tuple[Path, ...]) -> torch.Tensor:
            transform = transforms.Compose(steps)
            return torch.stack([transform(Image.open(file).convert("RGB")) for file in files])

        cpu = torch.device("cpu")
        ours_plain = next(images.batches(32, cpu))
        difference = float((ours_plain - one_by_one(plain, split.files[:32])).abs().max())
        if difference > 1e-5:
            raise SystemExit(f"the same images differ by {difference}")
        order = np.random.default_rng(1).permutation(COUNT)

        augmenter = Augmenter(config)

        def ours() -> None:
            for batch in images.stream(order.reshape(-1, BATCH), cpu):
                augmenter(batch, draw(BATCH, generator))

        def one_after_another(steps: list[object]) -> None:
            for indices in order.reshape(-1, BATCH):
                one_by_one(steps, tuple(split.files[index] for index in indices))

        variants = {"ours": ours, "torchvision": lambda: one_after_another(random)}
        if (own := torchreid()) is not None:
            variants["torchreid"] = lambda: one_after_another([own])
        seconds = interleaved(variants, options.rounds)
    table = Table("pipeline", "images/s", "ours over it", title=f"{COUNT} images to {HEIGHT} x {WIDTH}, one core")
    result: dict[str, float | None] = {"input_ratio": None, "largest_difference": difference}
    for name, found in seconds.items():
        speed = COUNT / float(np.median(found))
        middle, low, high = interval(found, seconds["ours"])
        table.add_row(name, f"{speed:.0f}", f"{middle:.1f} [{low:.1f}, {high:.1f}]" if name != "ours" else "")
        result[f"{name}_images_per_s"] = speed
        if name != "ours":
            result["input_ratio" if name == "torchreid" else "torchvision_ratio"] = middle
    Console().print(table)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
