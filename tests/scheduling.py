"""Which tests one worker of pytest-xdist runs: those of a file that share a fixture of their module, together."""

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent


@cache
def shares(file: str) -> bool:
    """Whether tests of a file share what is made once for their module."""
    return 'scope="module"' in (ROOT / file).read_text(encoding="utf-8")


def unit(nodeid: str) -> str:
    """What is run by one worker: a file, or one test."""
    file = nodeid.split("::")[0]
    return file if shares(file) else nodeid


class Together(LoadScopeScheduling):
    """Units in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
