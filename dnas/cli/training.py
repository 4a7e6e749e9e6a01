"""`dnas search` and `dnas retrain`, in a new folder or on with an old one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from dnas.cli.parser import Parser, Verb, first_line, typed
from dnas.errors import UserError

FIXED = (
    "space", "genotype", "backbone", "attention", "inherit", "weights", "seed", "holdout", "test_on", "cameras",
    "input.height", "input.width", "input.on_bad_image", "optim.optimiser", "optim.weight_decay", "loss.centre",
    "loss.assign", "loss.beta", "loss.refresh", "train.ema", "train.amp", "arch.data", "arch.lr", "arch.share",
    "arch.prior", "budget.latency",
)  # fmt: skip
"""What the state of a run was made with: resuming with other values would ignore them, or not fit."""


MOVED = ("data", "test_on")
"""What may lie elsewhere when a run goes on."""


def _config(verb: str) -> Any:
    from dnas.search.config import SearchConfig
    from retrain.config import RetrainConfig

    return SearchConfig if verb == "search" else RetrainConfig


def parser(verb: str, stored: dict[str, Any] | None = None) -> Parser:
    """The settings of a search or retraining.

    Args:
        stored: settings of a run that goes on: what is not typed is as it was.
    """
    kind = _config(verb)
    found = Parser(prog=f"dnas {verb}", description=first_line(kind))
    found.add_argument(
        "--config", action="config", help="YAML file with any of these settings, or the name of a recipe: bot, rib, ..."
    )
    found.add_argument("--resume", metavar="DIR", help="go on with the run in DIR, from its last checkpoint")
    found.add_argument(
        "--force", action="store_true", help="with --resume: go on with other settings than the run began with"
    )
    found.add_class_arguments(kind)
    if stored is not None:
        found.set_defaults(stored)
    return found


def run(verb: str, namespace: Namespace, words: Sequence[str]) -> None:
    from dnas.run import distributed

    config = typed(_config(verb), parser(verb).instantiate(namespace))
    if namespace.force:
        raise UserError("--force: goes with --resume DIR")
    if distributed.restarted() and (Path(config.out) / "config.yaml").is_file():  # by torchrun --max-restarts
        return resume(verb, ["--resume", config.out, *_typed_space(words)])
    if verb == "search":
        from dnas.search.search import search
        from search_spaces import load_space

        search(config, load_space(config.space))
    else:
        from retrain.train import retrain

        retrain(config)


def resume(verb: str, words: Sequence[str]) -> None:
    """Go on with a run. Its folder cannot name a file to run: a space of the user's own is typed again.

    Raises:
        UserError: settings that differ from those of the run, without --force.
    """
    from dnas.run.config import from_plain
    from dnas.run.folder import RunFolder
    from dnas.run.paths import check_there, with_paths
    from dnas.search.search import resume as resume_search
    from retrain.train import resume as resume_retraining
    from search_spaces import load_space, named_space

    where = [b for a, b in pairwise(words) if a == "--resume"] + [w[9:] for w in words if w.startswith("--resume=")]
    if len(where) != 1:
        raise UserError("--resume: give it once, with the folder of a run")
    folder = RunFolder.open(where[0])
    if folder.verb() != verb:
        raise UserError(f"{folder.path}: cannot {verb} on, this is a {folder.verb()}")
    before = from_plain(_config(verb), folder.config(), str(folder.config_file))
    config, changed = _changed(verb, before, words)
    check_there(with_paths(config, folder.bases).data, folder.bases)
    space = _typed_space(words)[-1] if _typed_space(words) else None
    if verb == "retrain":
        resume_retraining(folder.path, space, config if changed else None)
    else:
        found = load_space(space) if space else named_space(config.space)
        resume_search(replace(config, out=str(folder.path)), found, changed)  # it may have been moved since


def _changed(verb: str, before: Any, words: Sequence[str]) -> tuple[Any, bool]:
    """The settings to go on with, and whether they are other ones than before.

    `--data` and `--test_on` say where the run's own data lie now: their fingerprint decides whether they are that.
    """
    from dnas.run.config import flat

    stored = asdict(before)
    words = with_config_files(verb, words)
    typed_words = [word.split("=")[0] for word in words]
    if "--out" in typed_words:
        raise UserError("--out: not with --resume, a run goes on in its own folder")
    own = [] if "--data" in typed_words else [f"--data={before.data}"]
    namespace = parser(verb, flat(stored)).parse_args([*words, *own, f"--out={before.out}"])
    for key in MOVED:
        if f"--{key}" in typed_words:  # from wherever the run is looked at later
            namespace[key] = ",".join(str(Path(part).absolute()) for part in namespace[key].split(","))
    now = typed(_config(verb), parser(verb).instantiate(namespace))
    differing = {
        key: (old, new)
        for (key, old), new in zip(flat(stored).items(), flat(asdict(now)).values(), strict=True)
        if old != new and not (key == "space" and _typed_space(words))
    }
    moved = [key for key in MOVED if key in differing and f"--{key}" in typed_words and differing.pop(key)]
    said = "; ".join(f"{key}: the run has {old}, found {new}" for key, (old, new) in differing.items())
    if fixed := [key for key in differing if key.startswith(FIXED)]:
        raise UserError(f"--resume: {said}; in a run that goes on {', '.join(fixed)} cannot be changed")
    if differing and not namespace.force:
        raise UserError(f"--resume: {said} (--force goes on with the new settings)")
    return (now if differing or moved else before), bool(differing or moved)


def _typed_space(words: Sequence[str]) -> list[str]:
    """`--space FILE.py` if it was typed."""
    found = [b for a, b in pairwise(words) if a == "--space"] + [w[8:] for w in words if w.startswith("--space=")]
    return ["--space", found[-1]] if found and found[-1].endswith(".py") else []


def with_config_files(verb: str, words: Sequence[str]) -> list[str]:
    """Typed words in which `--config` holds what the file says, checked: the parser's messages do not name the file.

    Raises:
        UserError: naming file and key.
    """
    from dnas.run.config import check, with_nulls
    from dnas.run.files import read_yaml

    left, found = iter(words), []
    for word in left:
        name, _, file = word.partition("=")
        if name != "--config":
            found.append(word)
            continue
        file = file or next(left, "")
        content = with_nulls(_config(verb), read_yaml(Path(file)))
        check(_config(verb), content, file)
        if str(content.get("space")).endswith(".py"):
            raise UserError(
                f"{file}: space: a file of your own is run, so it must be typed: --space {content['space']}"
            )
        found.append(f"--config={json.dumps(content)}")
    return found


def _runner(verb: str) -> Callable[[Namespace, Sequence[str]], None]:
    return lambda namespace, words: run(verb, namespace, words)


VERBS = {
    "search": Verb("Search a space for an architecture.", lambda: parser("search"), _runner("search")),
    "retrain": Verb("Train a searched or a fixed network.", lambda: parser("retrain"), _runner("retrain")),
}
