"""A planted optimum: textures that only a spatial operation can tell apart, and a budget that fits one width of it.

Every pixel is black or white with equal chance. What makes an identity is how it goes with one neighbour: the same
or the opposite, in one of four directions; and a tint. Operations on single pixels see only the tint, pooling cannot
tell directions apart, a separable 3x3 convolution can. More channels are better, and the budget ends at eight.
"""

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dnas.data.augment import InputConfig
from dnas.loss.objective import LossConfig
from dnas.nn.cell_operations import NormConv, Pool, SeparableConv
from dnas.nn.chain import Chain, Skip
from dnas.nn.conv import ConvNormAct
from dnas.run.folder import RunFolder
from dnas.run.schedules import OptimConfig
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.search import Search
from dnas.space.holes import Width
from dnas.space.spec import Choices, OneOf, Space, decisions, fill

SIDE = 16
SEEDS = 10
BEST = {"operation": "sep_3", "width": 8}


def texture(direction: tuple[int, int], sign: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Random black and white (-1, 1) in which a pixel is `sign` times its neighbour in `direction`, mostly."""
    field = rng.choice([-1, 1], (SIDE, SIDE))
    dy, dx = direction
    for y in range(SIDE):
        for x in range(SIDE):
            y0, x0 = y - dy, x - dx
            if 0 <= y0 < SIDE and 0 <= x0 < SIDE and rng.random() < 0.99:
                field[y, x] = sign * field[y0, x0]
    return field


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 identities (4 directions, 2 signs, 2 tints) in 2 cameras, in the layout of Market-1501."""
    root, rng = tmp_path_factory.mktemp("textures"), np.random.default_rng(0)
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir()
    identity = 0
    for direction in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for sign in (-1, 1):
            for tint in ((1.0, 0.6, 0.6), (0.6, 0.6, 1.0)):
                identity += 1
                for image in range(20):
                    grey = (texture(direction, sign, rng) + 1) / 2 * 160 + 40
                    pixels = (grey[:, :, None] * np.array(tint)).astype(np.uint8)
                    name = f"{identity:04d}_c{1 + image % 2}s1_{image:06d}_00.jpg"
                    Image.fromarray(pixels).save(root / "bounding_box_train" / name, quality=98, subsampling=0)
    for folder, camera in (("query", 1), ("bounding_box_test", 2)):
        Image.new("RGB", (SIDE, SIDE)).save(root / folder / f"0100_c{camera}s1_000000_00.jpg")
    return root


def planted() -> tuple[Space, float]:
    """The space, and a budget that the best operation meets with eight channels but not with sixteen."""
    width = Width("width", (2, 4, 8, 16))
    operations = {
        "skip": Skip(), "conv_1": NormConv(), "avg_pool": Pool("avg"), "max_pool": Pool("max"),
        "sep_3": SeparableConv(3, times=1),
    }  # fmt: skip
    parts = (ConvNormAct(width, kernel=1), OneOf("operation", operations), ConvNormAct(24, kernel=1))
    space = Space("planted", Chain(parts), SIDE, SIDE)
    cost = fill(space.spec, BEST).cost(space.input).macs.value
    assert fill(space.spec, BEST | {"width": 16}).cost(space.input).macs.value > 1.2 * cost
    return space, 1.1 * cost


def config(textures: Path, out: Path, seed: int, budget: float, **arch: object) -> SearchConfig:
    return SearchConfig(
        str(textures), str(out), seed=seed, holdout=0.25, eval_every=0, device="cpu",
        input=InputConfig(flip=0.0, pad=0, erase=0.0), loss=LossConfig(eta=0.0),
        optim=OptimConfig(epochs=40, lr=0.01, warmup=1, identities=4, images=4),
        arch=ArchConfig(**{"lr": 0.05, "weights_only": 0.4, **arch}), budget=BudgetConfig(macs=budget),
    )  # fmt: skip


def found(textures: Path, out: Path, seed: int, **arch: object) -> Choices:
    space, budget = planted()
    search = Search(config(textures, out, seed, budget, **arch), space)
    search.run(RunFolder.create(out, "search", search.config, search.task.fingerprint, {}))
    return search.choices


@pytest.mark.parametrize("mode", ["score", ArchConfig().mode])
@pytest.mark.long
def test_the_search_finds_it_and_random_search_does_not(textures: Path, tmp_path: Path, mode: str) -> None:
    """An epoch of a search costs two of a network's (weights, logits): random search may train two networks.

    It is given a perfect evaluation of them, and still finds the optimum only if it draws it.
    """
    space, budget = planted()
    known, count = decisions(space.spec), space.spec.cost(space.input).macs
    hits = random_hits = 0
    for seed in range(SEEDS):
        hits += found(textures, tmp_path / str(seed), seed, mode=mode) == BEST
        rng, drawn = random.Random(seed), []
        while len(drawn) < 2:
            choices = {key: rng.choice(decision.options) for key, decision in known.items()}
            if count.at({key: known[key].index(choice) for key, choice in choices.items()}) <= budget:
                drawn.append(choices)
        random_hits += BEST in drawn
    assert hits >= 9
    assert random_hits <= 3
