"""`--own FILE.py`, with every verb: tasks, estimators, attention cells and backbones of the user's own, by name.

The file is run; what it puts into TASKS, ESTIMATORS, ATTENTION or BACKBONES can be used like what is shipped. Settings
and run folders hold the name alone: a run that needs the file is resumed, evaluated and drawn with the same --own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dnas.errors import UserError

OPTION = "--own"
OWNER: dict[tuple[str, str], str] = {}
"""The file that each name of a kind came from, in this process."""


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files that were typed after --own, and all other words.

    Raises:
        UserError: --own without a file.
    """
    files, rest, waiting = [], [], False
    for word in words:
        if waiting or word.startswith(f"{OPTION}="):
            files.append(word if waiting else word.split("=", 1)[1])
            waiting = False
        elif word == OPTION:
            waiting = True
        else:
            rest.append(word)
    if waiting:
        raise UserError("--own: found nothing, allowed: a Python file")
    return files, rest


def register(files: Sequence[str]) -> None:
    """Run the files and take over what they define.

    Raises:
        UserError: a file that does not run, defines nothing, or something else than its name says, or a taken name.
    """
    if not files:
        return
    from dnas.space.own_file import run_file

    kinds = _kinds()
    for file in files:
        module = run_file(file, "own")
        found = {kind: getattr(module, kind) for kind in kinds if hasattr(module, kind)}
        if not found:
            raise UserError(f"{file}: expected a mapping called {', '.join(kinds)}, found none of them")
        for kind, content in found.items():
            known, fits, what = kinds[kind]
            names = content if isinstance(content, dict) else {"": None}
            if not all(isinstance(name, str) and fits(value) for name, value in names.items()):
                raise UserError(f"{file}: {kind}: expected names and {what}")
            if taken := [name for name in names if name in known and OWNER.get((kind, name)) != file]:
                raise UserError(f"{file}: {kind}: the name '{taken[0]}' is taken")
            known.update(names)
            OWNER.update({(kind, name): file for name in names})


def _kinds() -> dict[str, tuple[dict[str, Any], Callable[[Any], bool], str]]:
    """What a file may define: the mapping that it adds to, what its values must be, and that in words."""
    from dnas.nn.attention import ATTENTION
    from dnas.nn.backbones import BACKBONES
    from dnas.search.estimators import ESTIMATORS
    from dnas.search.estimators.estimator import Estimator
    from dnas.space.spec import Spec
    from dnas.task import TASKS
    from dnas.task.task import Task

    def subclass_of(base: type) -> Callable[[Any], bool]:
        return lambda value: isinstance(value, type) and issubclass(value, base)

    return {
        "TASKS": (TASKS, subclass_of(Task), "subclasses of dnas.task.task.Task"),
        "ESTIMATORS": (ESTIMATORS, subclass_of(Estimator), "subclasses of dnas.search.estimators.estimator.Estimator"),
        "ATTENTION": (ATTENTION, lambda value: isinstance(value, Spec), "descriptions (dnas.space.spec.Spec)"),
        "BACKBONES": (BACKBONES, callable, "functions (width, small, attention) -> Chain"),
    }
