"""Every verb on terminals that do not know UTF-8, with names in any script: no traceback, whatever is lost."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from dnas.cli import VERBS, main
from dnas.draw.figures import save
from dnas.draw.glyphs import SAID
from dnas.serve.gallery import Gallery
from tests.searches import BY_LOGITS
from tests.serve.stub import stub

SMALL = ["--input.height", "16", "--input.width", "16", "--optim.identities", "3", "--optim.images", "2"]
SMALL += ["--device", "cpu", "--optim.epochs", "1"]
FIXED = ["--backbone", "resnet18", "--backbone_width", "0.125", "--attention", "dcs"]


@pytest.fixture(scope="module")
def home(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a search and two retrainings in a folder of a name that no western terminal can show."""
    folder = tmp_path_factory.mktemp("home") / "牛 ± Šárka"
    shutil.copytree(pedestrians, folder / "data")
    (folder / "data/query/牛.txt").write_text("")
    words = ["--data", str(folder / "data"), *SMALL]
    assert main(["search", *words, *BY_LOGITS, "--holdout", "0.4", "--out", str(folder / "search")]) == 0
    for seed in ("0", "1"):
        assert main(["retrain", *words, *FIXED, "--seed", seed, "--out", str(folder / f"run{seed}")]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "passed_over"), [("ascii", ()), ("cp1252", ("search", "retrain", "report"))])
def test_every_verb(
    home: Path, tmp_path: Path, encoding: str, passed_over: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoding that has less is tried with all, the other without the verbs that take long."""
    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding=encoding, write_through=True))
    out = tmp_path / "±牛"
    runs = [str(home / "run0"), str(home / "run1")]
    data = ["--data", str(home / "data"), *SMALL]
    for words, code in (
        (["data", "check", str(home / "data")], 0),
        (["search", *data, *BY_LOGITS, "--holdout", "0.4", "--out", str(out / "search")], 0),
        (["retrain", *data, *FIXED, "--out", str(out / "run")], 0),
        (["retrain", "--resume", str(out / "run")], 0),
        (["show", str(home / "search"), "-o", str(out / "net.svg")], 0),
        (["compare", *runs, "-o", str(out / "c.svg"), "--table", str(out / "t.md")], 0),
        (["eval", runs[0], "--output", str(out / "e.json")], 0),
        (["probe", runs[0]], 0),
        (["draw", "training", *runs, "-o", str(out / "t.png")], 0),
        (["report", str(home / "search"), *runs, "-o", str(out / "r.html")], 0),
        (["card", runs[0]], 0),
        (["embed", runs[0], str(home / "data/query"), "-o", str(out / "v.npz")], 0),
        (["data", "synth", str(out / "牛"), "--ids", "4", "--cameras", "2", "--images", "2"], 0),
        (["retrain", *data, *FIXED, "--out", runs[0]], 2),
        (["data", "check", str(home / "nowhere")], 2),
    ):
        assert words[0] in passed_over or main(words) == code, words
    text = written.getvalue().decode(encoding)
    assert r"\u725b" in text
    assert ("±" in text) == (encoding == "cp1252")
    assert (" +- " in text) == (encoding == "ascii")
    assert "±" in (out / "t.md").read_text("utf-8")
    for name in VERBS:
        with pytest.raises(SystemExit):
            main([name, "--help"])


@pytest.mark.slow
def test_a_real_terminal(home: Path) -> None:
    for encoding in ("ascii", "cp1252"):
        done = subprocess.run(
            [sys.executable, "-m", "dnas.cli", "compare", home / "run0", home / "run1"],
            capture_output=True, check=False, env={"PYTHONIOENCODING": encoding, "PATH": "", "PYTHONPATH": sys.path[0]},
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert re.search(rb"\d (\+-|\xb1) \d", done.stdout)
        assert done.stderr == b""


@pytest.mark.slow
def test_a_reader_that_has_gone(home: Path) -> None:
    """As `| head` is: nothing is said, whether plain text or a table was being written."""
    Gallery.create(home / "gallery", stub())
    for words in (["data", "check", "data"], ["gallery", "list", "gallery"], ["card", "run0"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "dnas.cli", *words], stdout=writer, stderr=subprocess.PIPE, check=False, cwd=home,
            env={**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, b""), words


def test_closed_streams() -> None:
    """As a daemon's may be."""
    words = f"{sys.executable} -m dnas.cli gallery list nowhere"
    here = Path(__file__).parent.parent
    said = subprocess.run(f"{words} >&-", shell=True, capture_output=True, check=False, cwd=here)
    assert (said.returncode, said.stderr[:20]) == (2, b"dnas: error: nowhere")
    assert subprocess.run(f"{words} >&- 2>&-", shell=True, check=False, cwd=here).returncode == 2


def test_letters_that_no_font_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, once; and other warnings go on."""
    SAID.clear()
    for _ in range(2):
        figure, axes = plt.subplots()
        axes.set_title("\U00012000 and \U00012001 (cuneiform)")
        save(figure, tmp_path / "f.png")
    assert capsys.readouterr().err == "dnas: no installed font has \U00012000 \U00012001: drawn as a box\n"
