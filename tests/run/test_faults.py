"""Faults: a disk that fills up, files that are bombs, a thread of the loader that dies; and other settings."""

import errno
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from dnas.cli import main
from dnas.data import images as images_module
from dnas.errors import UserError
from dnas.run.files import load_tensors, read_json, read_yaml
from dnas.run.folder import RunFolder
from tests.run.test_resume import SMALL, results, same_state

ROAD = ["retrain", *SMALL, "--device", "cpu", "--backbone", "resnet18", "--backbone_width", "0.125"]
ROAD += ["--optim.epochs", "3"]


class Disk:
    """Files that can be written until so many bytes are on the disk."""

    def __init__(self, room: int) -> None:
        self.room = room

    @contextmanager
    def in_use(self) -> Iterator[None]:
        opened, disk = Path.open, self

        class Stream:
            def __init__(self, stream: Any) -> None:
                self.stream = stream

            def write(self, content: Any) -> int:
                disk.room -= len(content)
                if disk.room < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return int(self.stream.write(content))

            def __getattr__(self, name: str) -> Any:
                return getattr(self.stream, name)

            def __enter__(self) -> "Stream":
                return self

            def __exit__(self, *given: object) -> None:
                self.stream.close()

        def limited(path: Path, mode: str = "r", *given: Any, **more: Any) -> Any:
            stream = opened(path, mode, *given, **more)
            return Stream(stream) if mode[0] in "wa" else stream

        Path.open = limited  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Path.open = opened  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full after any number of bytes; with room again the run goes on as if nothing had happened."""
    words = [*ROAD, "--data", str(pedestrians)]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0  # it also fills the cache of images
    wrote = sum(file.stat().st_size for file in (tmp_path / "whole").rglob("*") if file.is_file())
    size = max(file.stat().st_size for file in (tmp_path / "whole/checkpoints").iterdir())
    stopped = 0
    for number, room in enumerate([0, 300, 1000, 2000, size // 2, size + 2500, 2 * size + 500, 3 * size + 3000]):
        out = tmp_path / str(number)
        capsys.readouterr()
        with Disk(room).in_use():
            code = main([*words, "--out", str(out)])
        if code:
            error = capsys.readouterr().err.strip().splitlines()
            assert "No space left on device" in error[-1]
            assert all("no TensorBoard events are written" in line for line in error[:-1])  # if these were first
            stopped += 1
        assert not list(out.rglob("*.tmp"))
        begun = (out / "config.yaml").exists()
        assert main(["retrain", "--resume", str(out)] if begun else [*words, "--out", str(out)]) == 0
        assert results(out) == results(tmp_path / "whole"), room
    assert stopped >= 7
    assert wrote > size


def test_bombs_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for number, content in enumerate(("[" * 50 + "]" * 50, '{"a": ' * 50 + "1" + "}" * 50)):
        file.write_text(content)
        for read in (read_json, read_yaml):
            with pytest.raises(UserError, match="nested more than 40 levels deep"):
                read(file)
        file.write_text(content * 20_000 if number == 0 else "[" * 200_000)
        for read in (read_json, read_yaml):
            with pytest.raises(UserError, match=r"not readable as|larger than"):
                read(file)
    file.write_text("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    with pytest.raises(UserError, match="aliases"):
        read_yaml(file)
    file.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not readable as YAML"):
        read_yaml(file)
    file.write_text(" " * (33 << 20))
    with pytest.raises(UserError, match="larger than 32 MB"):
        read_json(file)
    stream = io.BytesIO()
    torch.save({"net": torch.zeros(1_000_000)}, stream)
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(UserError, match="not written by torch"):
        load_tensors(file)


def test_a_thread_of_the_loader_that_dies_is_one_line(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are decoded by threads; what ends one of them ends the run, with the file's name, and no half cache."""
    monkeypatch.setenv("DNAS_CACHE", str(tmp_path / "cache"))
    read, calls = images_module.read_pixels, []

    def dies(file: Path, height: int, width: int) -> Any:
        calls.append(file)
        if len(calls) == 7:
            raise OSError(errno.EIO, "Input/output error", str(file))
        return read(file, height, width)

    monkeypatch.setattr(images_module, "read_pixels", dies)
    words = [*ROAD, "--data", str(pedestrians), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert "Input/output error" in error
    assert "\n" not in error
    assert not list((tmp_path / "cache/images").iterdir())
    assert main(words) == 0


def test_other_settings_are_named_and_refused_unless_forced(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = str(tmp_path / "run"), [*ROAD, "--data", str(pedestrians)]
    assert main([*words, "--out", out]) == 0
    before = RunFolder(out).load()
    capsys.readouterr()
    changed = ["--optim.epochs", "5", "--loss.eta=0.1"]
    assert main(["retrain", "--resume", out, *changed]) == 2
    error = capsys.readouterr().err
    assert "--resume: loss.eta: the run has 0.3, found 0.1; optim.epochs: the run has 3, found 5 (--force" in error
    assert main(["retrain", "--resume", out, "--out", "x"]) == 2
    assert "--out: not with --resume" in capsys.readouterr().err
    assert main(["retrain", "--resume", out, "--data", "x"]) == 2
    assert "not there" in capsys.readouterr().err
    assert main(["retrain", "--resume", out, "--optim.optimiser", "sgd", "--force"]) == 2
    assert "in a run that goes on optim.optimiser cannot be changed" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "other"), "--force"]) == 2
    assert "--force: goes with --resume" in capsys.readouterr().err
    with RunFolder(out).locked():
        assert main(["retrain", "--resume", out, *changed, "--force"]) == 2
    assert "another process is running there" in capsys.readouterr().err
    assert RunFolder(out).config()["optim"]["epochs"] == 3  # nothing was changed
    assert main(["search", "--resume", out]) == 2
    assert "cannot search on, this is a retrain" in capsys.readouterr().err
    same_state(RunFolder(out).load(), before)
    assert main(["retrain", "--resume", out, "--optim.epochs", "3"]) == 0  # the same as before: nothing to refuse
    assert main(["retrain", "--resume", out, *changed, "--force"]) == 0
    assert [row["epoch"] for row in RunFolder(out).rows()] == list(range(5))
    assert RunFolder(out).config()["optim"]["epochs"] == 5
    assert read_yaml(tmp_path / "run/config.yaml.1")["optim"]["epochs"] == 3


@pytest.mark.parametrize("verb", ["search", "retrain"])
def test_who_comes_second_writes_nothing(
    verb: str, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs that start at once on one folder: the one that is refused leaves no word of its own there."""
    words = {"search": ["search", "--holdout", "0.4"], "retrain": ["retrain", "--backbone", "resnet18"]}[verb]
    small = ["--data", str(pedestrians), "--input.height", "32", "--input.width", "16", "--device", "cpu"]
    with RunFolder(tmp_path / "run").locked():  # the first has it, and has not written yet
        assert main([*words, *small, "--out", str(tmp_path / "run")]) == 2
    assert "another process is running there" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "run").iterdir()} <= {".lock"}


def test_checkpoints_to_keep(pedestrians: Path, tmp_path: Path) -> None:
    words = [*ROAD, "--data", str(pedestrians), "--checkpoint.every_steps", "1"]
    for keep in (1, 4):
        out = tmp_path / str(keep)
        assert main([*words, "--checkpoint.keep", str(keep), "--out", str(out)]) == 0
        assert len(list((out / "checkpoints").glob("0*.pt"))) == keep
