"""What is shipped is whole: a wheel, built from the source distribution, in an environment of its own.

Its torch is that of this environment, seen through a .pth file; the package is not.
"""

import json
import os
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.epochs", "1"]
SMALL += ["--optim.identities", "2", "--optim.images", "2", "--optim.milestones", "[]"]
CLEAN = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution and the wheel."""
    out = tmp_path_factory.mktemp("shipped")
    words = ["-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=CLEAN, cwd=out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def installed(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment with the wheel."""
    home = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(home)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    (wheel,) = shipped.glob("*.whl")
    words = ["-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *words], check=True, env=CLEAN)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (own / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")  # adds folders, not what theirs add
    return programs


def run(program: Path, *words: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, check=False, env=CLEAN, cwd=cwd
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_nothing_is_missing(shipped: Path) -> None:
    (wheel,), (sdist,) = shipped.glob("*.whl"), shipped.glob("*.tar.gz")
    held = set(zipfile.ZipFile(wheel).namelist())
    known = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False, cwd=ROOT).stdout.split()
    tracked = [ROOT / name for name in known] or [path for path in ROOT.rglob("*") if path.is_file()]
    for top in ("dnas", "search_spaces", "retrain"):
        files = [file for file in tracked if top in file.relative_to(ROOT).parts[:1] and file.suffix != ".pyc"]
        assert files
        assert {str(file.relative_to(ROOT)) for file in files} <= held
    recipes = {f"dnas/recipes/{file.name}" for file in (ROOT / "configs").glob("*.yaml")}
    assert recipes <= held
    assert {name.split("/")[0] for name in held} <= {"dnas", "search_spaces", "retrain", "dnas_reid-0.1.0.dist-info"}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "CONTRIBUTING.md",
        "tools/test.sh",
        "tests/conftest.py",
        "configs/bot.yaml",
    } <= inside


def test_from_data_to_report_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    python = installed / "python"
    where = run(python, "-c", "import dnas, retrain, search_spaces; print(dnas.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    program = installed / "dnas"
    size = ["--ids", 10, "--cameras", 3, "--images", 2, "--height", 32, "--width", 16]
    run(program, "data", "synth", "data", *size, cwd=tmp_path)
    run(program, "search", *SMALL, "--data", "data", "--out", "runs/search", "--holdout", 0.4, cwd=tmp_path)
    words = ["--config", "bot", *SMALL, "--data", "data", "--genotype", "runs/search", "--out", "runs/searched"]
    run(program, "retrain", *words, cwd=tmp_path)
    assert "centre: 0.0005" in (tmp_path / "runs/searched/config.yaml").read_text()  # of the recipe
    run(program, "report", "runs/search", "runs/searched", "-o", "report.html", "--images", 0, cwd=tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 100_000


@pytest.mark.long
def test_names_in_the_working_folder_stand_for_nothing(installed: Path, pedestrians: Path, tmp_path: Path) -> None:
    """Files of the user's that are called like modules that we import: for the program, torchrun and the sweep."""
    for name in ("retrain", "search_spaces", "dnas", "torch", "numpy", "yaml", "data", "tools", "rich", "bot"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "bot").write_text("not a recipe\n")
    words = [*SMALL, "--data", pedestrians, "--backbone", "resnet18", "--backbone_width", 0.125]
    run(installed / "dnas", "retrain", "--config", "bot", *words, "--out", "alone", cwd=tmp_path)
    torchrun = Path(sys.executable).parent / "torchrun"
    two = ["--nproc_per_node", 2, "--no-python", installed / "dnas", "retrain", *words, "--out", "two"]
    run(torchrun, *two, cwd=tmp_path)
    settings = {
        "data": str(pedestrians), "backbone": "resnet18", "backbone_width": 0.125, "device": "cpu",
        "input": {"height": 32, "width": 16}, "optim": {"epochs": 1, "identities": 2, "images": 2},
    }  # fmt: skip
    sweep = {"verb": "retrain", "out": "swept", "settings": settings, "vary": {"seed": [0]}}
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    run(installed / "dnas", "sweep", "sweep.yaml", cwd=tmp_path)
    finished = {file.parent.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("summary.json")}
    assert finished == {"alone", "two", "swept"}


def test_only_our_modules_hide_behind_m(installed: Path, tmp_path: Path) -> None:
    """`python -m dnas.cli` has the working folder first; our own top-level names are still ours."""
    (tmp_path / "retrain.py").write_text("raise SystemExit('the wrong module')\n")
    said = run(installed / "python", "-m", "dnas.cli", "retrain", "--print_config", cwd=tmp_path)
    assert "optim:" in said
