"""A Python file of the user's own, which was typed on the command line: it is run, once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from dnas.errors import UserError


def run_file(name: str, option: str) -> ModuleType:
    """Run a file and give what it defines.

    Args:
        name: the file, as it was typed; a name that comes from a file of settings or a run folder must not come here.
        option: what it was typed for, for messages.

    Raises:
        UserError: no such file, or whatever the user's code raises.
    """
    file = Path(name)
    if not file.is_file():
        raise UserError(f"{option}: {name}: no such file")
    spec = importlib.util.spec_from_file_location(f"user_{option}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever it is
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    return module
