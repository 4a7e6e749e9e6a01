"""Conditions on what is known about the pictures of a gallery, such as camera=3, time>=2024-05-01; in SQL."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from dnas.errors import UserError
from dnas.serve.listing import Value, typed

PATTERN = re.compile(r"([^=!<>]+?)\s*(!=|<=|>=|=|<|>)\s*((?!\s*([=<>]|!=)).*)")
PATH = "path"


def column(parameter: str) -> str:
    """SQL: the value of a picture in the column whose name is bound to the parameter.

    A JSON path does not find every name: not one with an umlaut or a quotation mark in it.
    """
    return f"(SELECT value FROM json_each(columns) WHERE key = {parameter})"


@dataclass(frozen=True)
class Condition:
    """One condition: numbers are compared with numbers, and text with text.

    A picture that has something else in the column, or nothing, meets none but !=.
    """

    column: str
    operator: str
    value: str

    @staticmethod
    def read(text: str, known: Collection[str]) -> Condition:
        """From the words of a user.

        Args:
            known: the columns that there are.

        Raises:
            UserError: not a condition, or on another column.
        """
        match = PATTERN.fullmatch(text)
        if not match or match[1] not in known:
            raise UserError(f"where: found {text!r}, allowed: COLUMN=VALUE (or !=, <, <=, >, >=) with columns"
                            f" {', '.join(known)}")  # fmt: skip
        return Condition(match[1], match[2], match[3])

    @property
    def may_be_number(self) -> bool:
        """Whether the value is one, and the column could have some."""
        return self.column != PATH and not isinstance(typed(self.value), str)

    def sql(self, number: int, as_number: bool) -> tuple[str, dict[str, Value]]:
        """An expression, and what is bound to its parameters.

        Args:
            number: of the condition: parameters are named by it.
            as_number: compare with numbers.
        """
        what = "path" if self.column == PATH else column(f":column{number}")
        alike = f"typeof({what}) {'<>' if as_number else '='} 'text'"
        met = f"coalesce({alike} AND {what} {self.operator.strip('!')} :value{number}, 0)"
        bound = {f"column{number}": self.column, f"value{number}": typed(self.value) if as_number else self.value}
        return f"NOT {met}" if self.operator == "!=" else met, bound
