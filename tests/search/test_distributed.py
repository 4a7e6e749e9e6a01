"""A search on two processes is the search of one process on the global batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from dnas.data.augment import Augmenter
from dnas.loss.objective import LossConfig
from dnas.run import distributed
from dnas.run.position import CheckpointConfig, Pauses, Stop
from dnas.run.schedules import OptimConfig
from dnas.search import prior
from dnas.search.config import ArchConfig, BudgetConfig, SearchConfig
from dnas.search.relaxation import Draws
from dnas.search.search import Search
from search_spaces import SPACES
from tests.ranks import leave
from tests.spaces import CELLS

CONFIG = SearchConfig(
    "", "", holdout=0.4, device="cpu",
    optim=OptimConfig(epochs=3, optimiser="sgd", identities=2, images=2, warmup=0, lr=0.01),
    loss=LossConfig(eta_warmup=0), budget=BudgetConfig(macs="1M"),
)  # fmt: skip
ARCH = {
    "score": ArchConfig("score", draws=3, weights_only=0.0, lr=0.01, prior=None),
    "sampled": ArchConfig("sampled", weights_only=0.0, lr=0.1, entropy=0.1, prior=None),
    "full": ArchConfig("full", weights_only=0.0, lr=0.1, prior=None),
    "classes": ArchConfig("sampled", weights_only=0.0, lr=0.1, prior=None),
    "joint": ArchConfig("sampled", data="joint", weights_only=0.0, lr=0.1, entropy=0.1, prior="naswot"),
}
SPACE = {
    "score": "tiny_reid_dcs",
    "sampled": "cells",
    "full": "tiny_reid",
    "classes": "tiny_reid",
    "joint": "tiny_reid_dcs",
}


def classes_of(data: str) -> str:
    """The first training images of a Re-ID set as a CSV file of three classes, beside it."""
    file = Path(data).parent / f"classes-{distributed.rank()}.csv"
    images = sorted((Path(data) / "bounding_box_train").iterdir())[:24]
    rows = [f"{image},{'abc'[number % 3]},train" for number, image in enumerate(images)]
    file.write_text("\n".join(["path,class,split", *rows]))
    return str(file)


def train(name: str, data: str, steps: int = 10) -> dict[str, torch.Tensor]:
    """`steps` steps (some epochs, with a pass for the class statistics before each)."""
    config = replace(CONFIG, data=data, arch=ARCH[name], loss=LossConfig(eta_warmup=0, refresh="epoch"))
    if name == "classes":
        config = replace(config, task="classify", data=classes_of(data), optim=replace(config.optim, batch=2))
    space = CELLS if SPACE[name] == "cells" else SPACES[SPACE[name]].resized(32, 16)
    if name == "sampled":
        config = replace(config, budget=BudgetConfig())
    state = Search(config, space)
    drawn: list[torch.Tensor] = []
    draws = state.relaxation.draws

    def spy(*given: Any) -> Draws:
        found = draws(*given)
        drawn.append(found.noise_NHK.argmax(2) if found.index_NH is None else found.index_NH)
        return found

    state.relaxation.draws = spy  # type: ignore[method-assign]
    done = 0
    while done < steps:
        done += state.task.count("weights")
        state.train_epoch(Pauses(CheckpointConfig(), state.position, Stop(), lambda: None))
        state.verdict.choices = state.budget.derive(state.relaxation)
        state.position.epoch = min(state.position.epoch + 1, 2)
        state.position.begin()
    tensors = {f"net {n}": v for n, v in state.net.state_dict().items()}
    tensors |= {f"objective {n}": v for n, v in state.task.objective.state_dict().items()}
    tensors |= {"logits": state.relaxation.logits_HK.detach(), "drawn": torch.cat(drawn)}
    return tensors | {
        "held out": torch.tensor(list(state.task.evaluate(state.children.recalibrated(state.choices)).values()))
    }


def in_double_precision(name: str, data: str) -> dict[str, torch.Tensor]:
    torch.set_default_dtype(torch.float64)
    networks, prior.NETWORKS = prior.NETWORKS, 40
    augmented = Augmenter.__call__
    Augmenter.__call__ = lambda *given: augmented(*given).double()  # type: ignore[method-assign]
    try:
        return train(name, data)
    finally:
        torch.set_default_dtype(torch.float32)
        prior.NETWORKS = networks
        Augmenter.__call__ = augmented  # type: ignore[method-assign]


def _rank(rank: int, folder: str, data: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({name: in_double_precision(name, data) for name in ARCH}, f"{folder}/{rank}.pt")
    leave()


@pytest.fixture(scope="module")
def ranks(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each of two processes has in the end, by kind of search."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_rank, (str(folder), str(pedestrians)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCH)
def test_two_processes_search_as_one(
    name: str, ranks: list[dict[str, dict[str, torch.Tensor]]], pedestrians: Path
) -> None:
    """The same draws; weights, logits and class statistics equal to 1e-9 after ten steps."""
    expected = in_double_precision(name, str(pedestrians))
    first, second = (found[name] for found in ranks)
    assert float(expected["logits"].abs().max()) > 0.03  # they moved
    assert expected["drawn"].unique(dim=0).shape[0] > 3
    for key, value in expected.items():
        torch.testing.assert_close(first[key], value, rtol=0, atol=1e-9, msg=f"{name}: {key}")
        torch.testing.assert_close(second[key], value, rtol=0, atol=1e-9, msg=f"{name}: {key}, rank 1")


def test_apart_every_rank_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert (distributed.world(), distributed.rank()) == (2, 1)
    with distributed.apart():
        assert (distributed.world(), distributed.rank(), distributed.own(8)) == (1, 0, slice(0, 8))
    assert distributed.own(8) == slice(4, 8)
