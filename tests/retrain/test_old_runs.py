"""A run folder of before keeps its meaning: `dcs` in its genotype or configuration is the function that it was.

Weights and pictures are of a formula; the figures are of the version before there was another cell of that kind.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from dnas.eval.ranking import rank
from dnas.nn.reid_net import ReIDNet
from dnas.run.checkpoints import save_checkpoint
from retrain.load import load
from retrain.models import network_of

SMALL = {"backbone_width": 0.125, "backbone_small": True, "attention": "dcs", "input": {"height": 32, "width": 16}}
CONFIGS: dict[str, dict[str, Any]] = {
    "searched": {"genotype": "a search", "input": {"height": 32, "width": 16}},
    "fixed": {"backbone": "resnet18", **SMALL},
    "transformer": {"backbone": "vit_tiny_16", **SMALL},
}
GENOTYPE = {
    "format": "dnas-genotype/1", "space": "attention_sites_tiny", "space_hash": "ce6fec7e80484da0",
    "choices": {f"stage{stage}.attention": "dcs" for stage in (1, 2, 3, 4)}, "cost": {}, "search": {},
}  # fmt: skip
PINNED = {
    "searched": (48.7598, [0.0036, 0.0570, -0.0020, 0.0652, 0.1665, 0.0010]),
    "fixed": (49.0126, [0.0163, 0.0424, 0.0636, 0.1000, 0.3077, 0.1720]),
    "transformer": (83.7206, [-0.1400, -0.0105, 0.3087, 0.0802, 0.2034, 0.2052]),
}
"""mAP, and the first numbers of the first embedding."""


def old_run(folder: Path, config: dict[str, Any]) -> Path:
    """The files that a retraining wrote, as far as its evaluation reads them."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": "away", "out": "away", **config}))
    (folder / "env.json").write_text(json.dumps({"verb": "retrain"}))
    if "genotype" in config:
        (folder / "genotype.json").write_text(json.dumps(GENOTYPE))
    model = network_of(str(folder))
    state = {name: wave(number, name, old) for number, (name, old) in enumerate(
        ReIDNet(model.spec, model.input, 4).state_dict().items())}  # fmt: skip
    save_checkpoint(folder / "checkpoints", {"net": state}, 1, 0)
    return folder


def wave(number: int, name: str, old: Tensor) -> Tensor:
    """Weights by the place and name of a tensor in its network, some of every sign, none of them zero."""
    if not old.is_floating_point():
        return old
    found = torch.arange(1, old.numel() + 1, dtype=torch.float64).mul(1.1 + 0.37 * number).sin().view(old.shape)
    if name.endswith("running_var") or (old.dim() == 1 and name.endswith("weight")):
        found = 1 + 0.5 * found
    elif old.dim() > 1:
        found = found * (2 / old[0].numel()) ** 0.5
    return found.to(old.dtype)


def pictures() -> Tensor:
    """Four of each of six people: waves of a length of their own, in different phases."""
    number, pixel = torch.arange(24, dtype=torch.float64)[:, None], torch.arange(3 * 32 * 16, dtype=torch.float64)
    return 9 * (pixel * (1 + number % 6) * 0.13 + number).sin().view(24, 3, 32, 16).float()


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_old_run_evaluates_to_what_it_did(kind: str, tmp_path: Path) -> None:
    network = load(old_run(tmp_path / kind, CONFIGS[kind]), "cpu").network
    with torch.no_grad():
        embedding = network.embed(pictures())
    people = np.arange(24) % 6, np.arange(24)
    found = 100 * rank(embedding, embedding, people, people).metrics()["mAP"]
    pinned, first = PINNED[kind]
    assert embedding[0, :6].tolist() == pytest.approx(first, abs=1e-4)
    assert found == pytest.approx(pinned, abs=0.01)
