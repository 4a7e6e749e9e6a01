"""What the verbs of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, Namespace

from dnas.errors import UserError
from dnas.run.config import takes_null

T = TypeVar("T")


class Parser(ArgumentParser):
    """Says what is wrong in one line."""

    def parse_args(self, args: Sequence[str] | None = None, **more: Any) -> Namespace:  # type: ignore[override]
        """`none` is taken where null is, as the help says it, if it is not a word of its own there."""
        words = list(sys.argv[1:] if args is None else args)
        for place, word in enumerate(words):
            key, *value = word.split("=", 1)
            if value == ["none"] and self._takes_null(key):
                words[place] = f"{key}=null"
            elif word == "none" and place and self._takes_null(words[place - 1]):
                words[place] = "null"
        return super().parse_args(words, **more)

    def _takes_null(self, option: str) -> bool:
        return takes_null(getattr(self._option_string_actions.get(option), "_typehint", None))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(" ".join(message.split()))


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Args:
        help: one line.
        parser: makes its parser.
        run: does it, with what the parser found and the words that were typed.
    """

    help: str
    parser: Callable[[], Parser]
    run: Callable[[Namespace, Sequence[str]], None]


def first_line(kind: type) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def typed(kind: type[T], namespace: Namespace) -> T:
    """The dataclass `kind` from parsed (and instantiated) settings."""
    values: dict[str, Any] = {name: namespace[name] for name in kind.__dataclass_fields__}  # type: ignore[attr-defined]
    return kind(**values)


def add_space(parser: Parser) -> None:
    parser.add_argument("--space", type=str, default=None, help="the space of the network, if it is a file of your own")


def add_device(parser: Parser, help: str = "auto, cpu, cuda, cuda:N or mps") -> None:
    from dnas.run.device import Device

    parser.add_argument("--device", type=Device, default="auto", help=help)
