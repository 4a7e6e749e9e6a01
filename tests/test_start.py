"""How the command line begins: quickly, and with what a stranger types first."""

import json
import subprocess
import sys

import pytest

from dnas.cli import VERBS, main
from dnas.run.doctor import examine

HEAVY = ("torch", "numpy", "matplotlib", "networkx", "sklearn", "scipy", "PIL", "tensorboard")


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys; from dnas.cli import main\ntry: main(['--help'])\nfinally: print({HEAVY} & sys.modules.keys())"
    code = code.replace(str(HEAVY), str(set(HEAVY)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_alone_it_says_what_there_is(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(f"    {name} " in said for name in VERBS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("dnas ")


def test_doctor_says_what_is_missing_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert found["torch"]["advice"] == ""
    assert {"python", "threads", "cache", "disk here", "graphviz", "chromium"} <= set(found)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(
        "dnas.run.doctor.requires", lambda name: ["torch>=99", "nowhere>=1", 'optuna>=99; extra == "x"']
    )
    lacking = {finding.name: finding for finding in examine() if finding.advice}
    assert lacking["torch"].advice == 'pip install "torch>=99"'
    assert (lacking["torch"].needed, lacking["nowhere"].needed, lacking["optuna"].needed) == (True, True, False)
    assert "apt install graphviz" in lacking["graphviz"].advice
    assert main(["doctor"]) == 2
    assert "dnas: error: doctor: torch: pip install" in capsys.readouterr().err
