"""Filters, in pyarrow's form: ``[column, op, value]`` lists; a list of lists of them is an OR of ANDs.

A null (and a NaN) satisfies no comparison, whatever its operator: also ``!=`` and ``not in`` pass it over; ``[column, is, null]``
and ``[column, is not, null]`` ask for it. Numbers are compared as numbers, text by its bytes.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from batchscore.digest import digest_of
from batchscore.values import Value

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in", "is", "is not"]
OPERATORS: Final[tuple[str, ...]] = get_args(Operator)
Literals = StrictBool | StrictInt | StrictFloat | StrictStr

LISTS: Final = frozenset({"in", "not in"})
NULLS: Final = frozenset({"is", "is not"})
_FORM: Final = "a filter is a list of conditions, or a list of such lists for OR → such as [[is_html, ==, true]]"
_SAYS: Final = {"==": "is", "!=": "is not", "in": "is one of", "not in": "is none of"}


class Condition(Value):
    """One comparison of a column with a value: with several for ``in`` and ``not in``, with null for ``is`` and ``is not``."""

    column: str = Field(min_length=1, max_length=255)
    op: Operator
    value: Literals | tuple[Literals, ...] | None

    @model_validator(mode="after")
    def _has_values_of_its_operator(self) -> Condition:
        if (self.value is None) != (self.op in NULLS):
            msg = f"{self.op} wants {'null' if self.op in NULLS else 'a value'} → such as [closed_at, is, null]"
            raise ValueError(msg)
        if isinstance(self.value, tuple) != (self.op in LISTS):
            msg = f"{self.op} wants {'a list of values' if self.op in LISTS else 'one value'} → such as [kind, {self.op}, …]"
            raise ValueError(msg)
        if (self.op not in NULLS and not self.values) or len({type(value) for value in self.values}) > 1:
            msg = f"{self.op} wants at least one value, all of one kind → change {self.column!r}"
            raise ValueError(msg)
        if not all(map(_is_writable, (self.column, *self.values))):
            msg = "half of a surrogate pair is no text, and no database holds it → write the character itself"
            raise ValueError(msg)
        return self

    @property
    def values(self) -> tuple[bool | int | float | str, ...]:
        """What the column is compared with; nothing where it is asked for null."""
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def sentence(self) -> str:
        """The condition in words."""
        if self.op in NULLS:
            return f"{self.column} {self.op} missing"
        said = ", ".join("yes" if value is True else "no" if value is False else str(value) for value in self.values)
        return f"{self.column} {_SAYS.get(self.op, self.op)} {said}"


def _is_writable(value: float | str) -> bool:
    """Whether it can be written as UTF-8, as all but text can."""
    return not isinstance(value, str) or not any("\ud800" <= character <= "\udfff" for character in value)


def _condition(value: Any) -> Any:
    if isinstance(value, list):
        if len(value) != len(("column", "op", "value")) or not isinstance(value[0], str):
            msg = "a condition has a column, an operator and a value → such as [is_html, ==, true]"
            raise ValueError(msg)
        column, op, of = value
        if not all(one is None or isinstance(one, (bool, int, float, str)) for one in (of if isinstance(of, list) else [of])):
            msg = f"{column!r} is compared with numbers, text, true or false → put it in quotes if it is text"
            raise ValueError(msg)
        if any(isinstance(one, float) and not isfinite(one) for one in (of if isinstance(of, list) else [of])):
            msg = f"{column!r} cannot be compared with an infinite number, nor with nan → write a number, or [{column}, is, null]"
            raise ValueError(msg)
        return {"column": column, "op": op, "value": tuple(of) if isinstance(of, list) else of}
    return value


def _any_of(value: Any) -> Any:
    """One list of conditions is the only alternative of an OR."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, list) or not all(isinstance(part, list) for part in value):
        raise ValueError(_FORM)
    if not all(value):
        msg = "an empty list of conditions lets everything through → remove it"
        raise ValueError(msg)
    of_conditions = {isinstance(part[0], (list, dict, Condition)) for part in value}
    if len(of_conditions) > 1:
        raise ValueError(_FORM)
    return [value] if of_conditions == {False} else value


Conditions = tuple[Annotated[Condition, BeforeValidator(_condition)], ...]
Where = Annotated[tuple[Conditions, ...], BeforeValidator(_any_of)]  # an OR of ANDs; the empty one lets every event through


def columns_of(where: Where) -> set[str]:
    """The columns a filter reads."""
    return {condition.column for conditions in where for condition in conditions}


def digest_of_where(where: Where) -> str:
    """64 hex; equal filters have equal digests."""
    return digest_of([[condition.model_dump(mode="json") for condition in conditions] for conditions in where])


def sentence_of(where: Where) -> str:
    """A filter in words, such as ``where kind is 3 and bytes > 100, or is_html is yes``."""
    said = ", or ".join(" and ".join(condition.sentence() for condition in conditions) for conditions in where)
    return f"where {said}" if said else ""


def outline_of(where: Where) -> str:
    """A filter without what it compares with, which may be somebody's: ``plan in (3), closed_at is null; 1a2b3c4d``."""

    def outlined(condition: Condition) -> str:
        if condition.op in NULLS:
            return f"{condition.column} {condition.op} null"
        return f"{condition.column} {condition.op} {f'({len(condition.values)})' if condition.op in LISTS else '…'}"

    said = ", or ".join(" and ".join(map(outlined, conditions)) for conditions in where)
    return f"{said}; {digest_of_where(where)[:8]}"
