"""Recipes by name."""

from pathlib import Path

import pytest

from dnas.errors import UserError
from dnas.run.recipes import folder, recipes, with_files


def test_a_name_is_a_recipe_and_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"bot", "rib", "rib-dcs-fixed"} <= set(recipes())
    bot = str(folder() / "bot.yaml")
    assert with_files(["--config", "bot", "--config=bot", "--out", "bot"]) == [
        "--config", bot, f"--config={bot}", "--out", "bot"
    ]  # fmt: skip
    Path("bot").write_text("")
    Path("own").write_text("")
    assert with_files(["--config", "bot"]) == ["--config", bot]  # a file of that name changes nothing
    for path in ("own", "bot.yaml", "./bot", "none.yaml"):
        assert with_files(["--config", path]) == ["--config", path]
    with pytest.raises(UserError, match="config: found 'bots', allowed: a file, or one of bot, "):
        with_files(["--config", "bots"])
