"""What networks are searched and trained for: one file a task, named here and nowhere else."""

from __future__ import annotations

from dnas.errors import UserError
from dnas.task.classify import ClassifyTask
from dnas.task.reid import ReIDTask
from dnas.task.task import Task

TASKS: dict[str, type[Task]] = {"reid": ReIDTask, "classify": ClassifyTask}
"""What `--task` may be. A new task is a file beside these and a line here."""


def pick_task(name: str) -> type[Task]:
    """The task called `name`.

    Raises:
        UserError: there is none.
    """
    if name not in TASKS:
        hint = f"; a file of your own is run, so it must be typed: --task {name}" if name.endswith(".py") else ""
        raise UserError(f"task: found '{name}', allowed: {', '.join(TASKS)}{hint}")
    return TASKS[name]
