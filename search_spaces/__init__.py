"""Search spaces: one file each, found by name; a user's own file is named by its path."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from dnas.errors import UserError
from dnas.space.spec import Space
from search_spaces.fbnetv2_reid import fbnetv2_reid
from search_spaces.tiny_reid import tiny_reid

SPACES: Mapping[str, Space] = {
    space.name: space
    for space in (
        tiny_reid(),
        tiny_reid("tiny_reid_dcs", ("dcs",)),
        tiny_reid("tiny_reid_ca", ("se",)),
        fbnetv2_reid("dcs", "fbnetv2_reid_dcs"),
        fbnetv2_reid("se", "fbnetv2_reid_ca"),
    )
}


def load_space(name: str) -> Space:
    """A space by name, or from a Python file of the user's that defines `SPACE`.

    Only the command line may name a file: a genotype or configuration that comes from elsewhere is
    looked up by name and never makes the program run anything.
    """
    if name in SPACES:
        return SPACES[name]
    if not name.endswith(".py"):
        raise UserError(f"space: found '{name}', allowed: {', '.join(SPACES)}, or a Python file that defines SPACE")
    file = Path(name)
    if not file.is_file():
        raise UserError(f"space: {name}: no such file")
    module_spec = importlib.util.spec_from_file_location(file.stem, file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        raise UserError(
            f"{name}: expected a variable SPACE of type dnas.space.spec.Space, found {type(space).__name__}"
        )
    return space
