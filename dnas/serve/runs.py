"""A search or a retraining by one call from Python: what `dnas search` and `dnas retrain` do."""

from __future__ import annotations

from dnas.run.folder import RunFolder
from dnas.search.config import SearchConfig
from dnas.search.search import search
from retrain.config import RetrainConfig
from retrain.train import retrain
from search_spaces import load_space


def run_search(config: SearchConfig) -> RunFolder:
    """Search, in the new folder `config.out`. A space that is a Python file is run.

    Raises:
        UserError: settings that cannot be, a data set that cannot be read, or a folder that holds a run.
    """
    return search(config, load_space(config.space))


def run_retraining(config: RetrainConfig) -> RunFolder:
    """Train and evaluate a searched or a fixed network, in the new folder `config.out`.

    Raises:
        UserError: as `run_search`.
    """
    return retrain(config)
