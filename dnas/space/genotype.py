"""The genotype file: the choices of a derived network as small, versioned JSON.

Reading validates everything and executes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dnas.errors import UserError
from dnas.run.files import read_json, write_json
from dnas.space.spec import Choice, Decision, Space, decisions, fill

FORMAT = "dnas-genotype/1"


@dataclass(frozen=True)
class Genotype:
    """A point of a space.

    Args:
        space: name of the space.
        space_hash: of the description it was derived from.
        choices: hole key -> chosen option.
        cost: counted MACs and parameters of the network, at the input size in `search`.
        search: how it was found (seed, epochs, data, logits, entropies, ...); for people and reports.
    """

    space: str
    space_hash: str
    choices: dict[str, Choice]
    cost: dict[str, int] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        write_json(file, {"format": FORMAT, **vars(self)})

    @staticmethod
    def of(space: Space, choices: Mapping[str, Choice], search: dict[str, Any] | None = None) -> Genotype:
        """The genotype of `choices`, with its counted cost."""
        cost = fill(space.spec, choices).cost(space.input)
        counted = {"macs": cost.macs.value, "params": cost.params.value, "height": space.height, "width": space.width}
        return Genotype(space.name, space.hash, dict(choices), counted, search or {})


def read_genotype(file: Path) -> Genotype:
    """Read and check everything that can be checked without the space.

    Raises:
        UserError: naming the file, the key, what was found and what is allowed.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(content).__name__}")
    if content.get("format") != FORMAT:
        raise UserError(f"{file}: key 'format': found {content.get('format')!r}, allowed: '{FORMAT}'")
    expected = {"space": str, "space_hash": str, "choices": dict, "cost": dict, "search": dict}
    for key, kind in expected.items():
        if not isinstance(content.get(key), kind):
            raise UserError(f"{file}: key '{key}': found {_found(content.get(key))}, expected {kind.__name__}")
    for key in content:
        if key not in expected and key != "format":
            raise UserError(f"{file}: unknown key '{key}', allowed: format, {', '.join(expected)}")
    return Genotype(**{key: content[key] for key in expected})


def check_genotype(genotype: Genotype, space: Space, file: Path) -> None:
    """Check a genotype against its space.

    Raises:
        UserError: another space, a space that has changed since, missing or unknown keys or options.
    """
    if genotype.space != space.name:
        raise UserError(f"{file}: key 'space': found '{genotype.space}', this is the space '{space.name}'")
    known = decisions(space.spec)
    for key in genotype.choices:
        if key not in known:
            raise UserError(f"{file}: choices: unknown key '{key}', allowed: {', '.join(known)}")
    for key, decision in known.items():
        _check_choice(genotype, key, decision, file)
    if genotype.space_hash != space.hash:
        raise UserError(
            f"{file}: key 'space_hash': found '{genotype.space_hash}', expected '{space.hash}':"
            f" the space '{space.name}' has changed since"
        )


def _check_choice(genotype: Genotype, key: str, decision: Decision, file: Path) -> None:
    if key not in genotype.choices:
        raise UserError(f"{file}: choices: key '{key}' is missing, allowed: {_options(decision)}")
    choice = genotype.choices[key]
    if isinstance(choice, bool) or not isinstance(choice, str | int) or choice not in decision.options:
        raise UserError(f"{file}: choices: key '{key}': found {_found(choice)}, allowed: {_options(decision)}")


def _options(decision: Decision) -> str:
    return ", ".join(str(option) for option in decision.options)


def _found(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]
