"""The long tools, in small: they are run by hand with larger numbers (docs/reliability.md)."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from dnas.data.synthetic import SynthConfig, synthesise

TOOLS = Path(__file__).parent.parent / "tools"


def run(*words: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=TOOLS.parent)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_end_like_undisturbed_ones() -> None:
    assert run("tools/kill_runs.py", "--kills", "4", "--json") == {"kills": 4, "differences": 0}


@pytest.mark.slow
def test_files_from_strangers() -> None:
    found = run("tools/fuzz.py", "--cases", "1000", "--json")
    assert found["cases"] >= 1000
    assert found["failures"] == 0
    assert found["refused"] > 250  # most mutations are wrong


@pytest.mark.long
def test_real_photographs_in_small(tmp_path: Path) -> None:
    """The whole of tools/results/real.py on held-out identities, with query and gallery taken away; then once more."""
    root = tmp_path / "data"
    synthesise(SynthConfig(str(root), ids=16, cameras=2, images=2, height=32, width=16))
    for folder in ("query", "bounding_box_test"):
        for file in (root / folder).iterdir():
            file.write_bytes(b"never read")
    torch.save(mobilenet_v2().state_dict(), tmp_path / "w.pth")
    words = [str(root), str(tmp_path / "out"), "--weights", str(tmp_path / "w.pth"), "--held-out", "--size", "32", "16"]
    words += ["--budget", "0.6M", "--epochs", "1", "1", "--scratch-epochs", "1", "1", "--holdout", "0.34", "--json"]
    more = ["--more", "--optim.identities", "2", "--optim.images", "2"]
    found = run("tools/results/real.py", *words, *more)
    assert set(found) == {"untrained", "trained", "searched-sites", "searched-tiny", "cut"}
    assert all(0 < value <= 1 for value in found.values())
    text = (tmp_path / "out/real.md").read_text()
    assert "held-out training identities as query and gallery; 3 seeds" in text
    assert text.count("| [") == 4
    assert run("tools/results/real.py", *words, *more) == found


def test_further_options_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind -- reaches the searches of tools/results/search.py."""
    found: list[object] = []
    monkeypatch.syspath_prepend(TOOLS / "results")
    script = importlib.import_module("search")
    monkeypatch.setattr(script, "run", found.append)
    words = ["run", "data", "out", "--space", "tiny_reid", "--budget", "7M", "--only-searches"]
    for further in ([], ["--arch.prior", "naswot", "--arch.share=false"]):
        monkeypatch.setattr(sys, "argv", ["search.py", *words, *(["--", *further] if further else [])])
        script.main()
        assert found[-1].search == further  # type: ignore[attr-defined]
        assert found[-1].limit == 7e6  # type: ignore[attr-defined]
