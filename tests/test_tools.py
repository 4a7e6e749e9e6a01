"""The long tools, in small: they are run by hand with larger numbers (docs/reliability.md)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"


def run(*words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=TOOLS.parent)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_end_like_undisturbed_ones() -> None:
    assert run("tools/kill_runs.py", "--kills", "20", "--json") == {"kills": 20, "differences": 0}


@pytest.mark.slow
def test_files_from_strangers() -> None:
    found = run("tools/fuzz.py", "--cases", "2000", "--json")
    assert found["cases"] >= 2000
    assert found["failures"] == 0
    assert found["refused"] > 500  # most mutations are wrong
