"""torch.compile in a search: every option of a choice on its own, and nothing unless it is asked for."""

from pathlib import Path

import pytest
from torch import nn

from dnas.run.schedules import OptimConfig
from dnas.run.step import TrainConfig
from dnas.search.config import SearchConfig
from dnas.search.search import Search
from dnas.search.supernet import Mixed
from search_spaces import SPACES


@pytest.mark.parametrize("wanted", [True, False])
def test_every_option_is_compiled(
    wanted: bool, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    optim = OptimConfig(identities=3, images=2)
    config = SearchConfig(
        str(pedestrians), str(tmp_path), holdout=0.4, device="cpu", optim=optim, train=TrainConfig(compile=wanted)
    )
    state = Search(config, SPACES["tiny_reid"].resized(32, 16))
    options = [option for module in state.net.modules() if isinstance(module, Mixed) for option in module.operations]
    assert options
    assert compiled == (options if wanted else [])
