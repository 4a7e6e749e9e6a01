"""The documents: every link leads somewhere, every command can be typed, the first hour runs, the site builds."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from dnas.cli import VERBS, main
from dnas.run.recipes import recipes

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHORTER = (
    ("--ids 60", "--ids 10"),
    ("--optim.epochs 24", "--optim.epochs 2"),
    ("--optim.epochs 36", "--optim.epochs 2"),
)
SMALL = "--holdout 0.4 --input.height 32 --input.width 16 --optim.identities 2 --optim.images 2 --device cpu"


def blocks(page: Path) -> list[str]:
    """Shell commands of a page, one a line."""
    return [block.replace("\\\n", " ") for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `dnas ...` in a block, and in the comments of recipes, with its page."""
    recipe = [
        (file.name, line[1:]) for file in recipes().values() for line in file.read_text().splitlines() if "#" in line
    ]
    for name, text in [*((page.name, block) for page in PAGES for block in blocks(page)), *recipe]:
        for line in text.splitlines():
            for part in re.split(r"[;&|]+ ?(?:do )?", line.split(" #")[0]):
                words = shlex.split(part.replace("$ ", ""))
                if "dnas" in words:
                    yield name, words[words.index("dnas") + 1 :]


@lru_cache
def options(verb: str, action: str) -> set[str]:
    parser: Any = VERBS[verb].parser()
    inner = next((a.choices for a in parser._actions if isinstance(a.choices, dict) and action in a.choices), None)
    parser = inner[action] if inner else parser
    return {option for a in parser._actions for option in a.option_strings}


def test_every_command_can_be_typed() -> None:
    found = list(commands())
    assert len(found) > 40
    for page, words in found:
        verb, *rest = words or ["--help"]
        if verb.startswith("-") or verb.isupper():
            continue
        assert verb in VERBS, f"{page}: dnas {verb}"
        known = options(verb, rest[0] if rest else "") | {"--own"}  # of any verb
        for number, word in enumerate(rest):
            name = word.split("=")[0].strip("[]").split("$")[0]
            if name.startswith("-") and not re.fullmatch(r"-[\d.]+", name):
                assert name in known, f"{page}: dnas {verb} {name}"
            if name == "--config" and not rest[number + 1].isupper() and rest[number + 1] != "F.yaml":
                given = rest[number + 1]
                assert given in recipes() or (ROOT / given).is_file(), f"{page}: --config {given}"


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        links = re.findall(r"\]\(([^)#\s]+)(#[^)]*)?\)", text) + [
            (src, "") for src in re.findall(r'src="([^"]+)"', text)
        ]
        for link, anchor in links:
            if link.startswith(("http://", "https://", "mailto:")) or link.startswith("reference/"):  # made by the site
                continue
            target = page.parent / link
            assert target.exists(), f"{page.relative_to(ROOT)}: {link}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                known = {re.sub(r"[^\w\s-]", "", head.lower()).strip().replace(" ", "-") for head in heads}
                assert anchor[1:] in known, f"{page.relative_to(ROOT)}: {link}{anchor}"


def test_every_script_is_there() -> None:
    for page in PAGES:
        for script in re.findall(r"(?:python|bash) (tools/[\w/.]+|tests/[\w/.]+)", page.read_text()):
            assert (ROOT / script).exists(), f"{page.name}: {script}"


@pytest.mark.slow
def test_the_first_hour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the tutorial in its order, with fewer and smaller images, people and epochs."""
    page = ROOT / "docs" / "tutorial.md"
    script = "\n".join(blocks(page))
    for long, short in SHORTER:
        assert long in script
        script = script.replace(long, short)
    script = re.sub(r"^(dnas (?:search|retrain) (?!--resume).*)$", rf"\1 {SMALL}", script, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for line in filter(None, script.splitlines()):
        program, *words = shlex.split(line)
        assert program == "dnas"
        assert main(words) == 0, line
    for file in (
        "space.svg",
        "network.svg",
        "choices.png",
        "compare.png",
        "compare.md",
        "ranked.png",
        "report.html",
        "card.md",
    ):
        assert (tmp_path / file).stat().st_size > 200, file


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material")
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    verbs = (tmp_path / "site" / "reference" / "verbs.html").read_text()
    assert all(f"dnas {name}" in verbs for name in VERBS)
    assert "--optim.epochs" in verbs
    from tools.site_reference import MODULES

    named = [package for _, packages in MODULES.values() for package in packages]
    packages = {f"dnas.{folder.name}" for folder in (ROOT / "dnas").iterdir() if (folder / "__init__.py").exists()}
    assert packages <= {*named, "dnas.cli"}
