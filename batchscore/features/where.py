"""Filters of events, in pyarrow's form: ``[column, op, value]`` lists; a list of lists of them is an OR of ANDs.

A null (and a NaN) satisfies no condition, whatever its operator: also ``!=`` and ``not in`` pass it over. Numbers are compared
as numbers, text by its bytes, and a filter sees a column as it is in the file. What cannot be compared exactly is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from batchscore.digest import digest_of
from batchscore.spec import Value

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
OPERATORS: Final[tuple[str, ...]] = get_args(Operator)
Literals = StrictBool | StrictInt | StrictFloat | StrictStr
Mask = npt.NDArray[np.bool_]

_LISTS: Final = frozenset({"in", "not in"})
_COMPARES: Final = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_MAX_DECIMALS: Final = 19
_SAYS: Final = {"==": "is", "!=": "is not", "in": "is one of", "not in": "is none of"}


class Condition(Value):
    """One comparison of a column with a value; with several values for ``in`` and ``not in``."""

    column: str = Field(min_length=1, max_length=255)
    op: Operator
    value: Literals | tuple[Literals, ...]

    @model_validator(mode="after")
    def _has_values_of_its_operator(self) -> Condition:
        if isinstance(self.value, tuple) != (self.op in _LISTS):
            msg = f"{self.op} wants {'a list of values' if self.op in _LISTS else 'one value'} → such as [kind, {self.op}, …]"
            raise ValueError(msg)
        if not self.values or len({type(value) for value in self.values}) > 1:
            msg = f"{self.op} wants at least one value, all of one kind → change {self.column!r}"
            raise ValueError(msg)
        return self

    @property
    def values(self) -> tuple[bool | int | float | str, ...]:
        """What the column is compared with."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def sentence(self) -> str:
        """The condition in words."""
        said = ", ".join("yes" if value is True else "no" if value is False else str(value) for value in self.values)
        return f"{self.column} {_SAYS.get(self.op, self.op)} {said}"


def _condition(value: Any) -> Any:
    if isinstance(value, list):
        if len(value) != len(("column", "op", "value")):
            msg = "a condition has a column, an operator and a value → such as [is_html, ==, true]"
            raise ValueError(msg)
        column, op, of = value
        return {"column": column, "op": op, "value": tuple(of) if isinstance(of, list) else of}
    return value


def _any_of(value: Any) -> Any:
    """One list of conditions is the only alternative of an OR."""
    if not isinstance(value, list):
        return value
    if not all(value):
        msg = "an empty list of conditions lets everything through → remove it"
        raise ValueError(msg)
    return [value] if value and all(isinstance(part, list) and isinstance(part[0], str) for part in value) else value


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


def refusal_of(kind: pa.DataType, condition: Condition) -> str | None:
    """Why a column of that type cannot be compared so; None when it can. A column of nothing but nulls can."""
    if pa.types.is_null(kind):
        return None
    wanted: tuple[type, ...]
    if pa.types.is_boolean(kind):
        wanted, called = (bool,), "true or false"
    elif pa.types.is_integer(kind):
        wanted, called = (int,), "whole numbers"
    elif pa.types.is_floating(kind) or pa.types.is_decimal128(kind):
        wanted, called = (int, float), "numbers"
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        wanted, called = (str,), "text"
    else:
        return f"{kind} cannot be compared: numbers, text and true or false only"
    if any(type(value) not in wanted for value in condition.values):
        return f"{kind} is compared with {called}"
    if pa.types.is_integer(kind) and not all(_fits(_compared_as(kind), value) for value in condition.values):
        return f"{kind} never is {' or '.join(map(str, condition.values))}"
    if pa.types.is_decimal(kind) and any(_n_decimals(value) > _MAX_DECIMALS for value in condition.values):
        return f"{kind} is compared with numbers of at most {_MAX_DECIMALS} decimals"
    return None


def mask_of(events: pa.Table, where: Where) -> Mask:
    """Which rows pass, bool (n,). The columns are of types that `refusal_of` has nothing against."""
    passes = np.zeros(len(events), np.bool_)
    for conditions in where:
        every = np.ones(len(events), np.bool_)
        for condition in conditions:
            every &= _holds(events[condition.column], condition)
        passes |= every
    return passes


def _holds(values: pa.ChunkedArray, condition: Condition) -> Mask:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_null(values.type):
        return np.zeros(len(values), np.bool_)
    kind = _compared_as(values.type)
    held = values.cast(kind)
    wanted = pa.array(_typed(condition.values, kind), kind)
    if condition.op in _LISTS:
        found = pc.is_in(held, value_set=wanted)
        found = found if condition.op == "in" else pc.invert(found)
    else:
        found = _COMPARES[condition.op](held, wanted[0])
    present = pc.is_valid(held) if not pa.types.is_floating(kind) else pc.invert(pc.is_null(held, nan_is_null=True))
    holds: Mask = pc.fill_null(pc.and_(found, present), fill_value=False).to_numpy()
    return holds


def _compared_as(kind: pa.DataType) -> pa.DataType:
    """One type for all that compare alike, so that files of other widths filter alike."""
    if pa.types.is_integer(kind):
        return kind if kind == pa.uint64() else pa.int64()
    if pa.types.is_decimal(kind):
        return pa.decimal256(76, max(kind.scale, _MAX_DECIMALS))
    return pa.float64() if pa.types.is_floating(kind) else kind


def _typed(values: Iterable[Any], kind: pa.DataType) -> list[Any]:
    return [Decimal(str(value)) for value in values] if pa.types.is_decimal(kind) else list(values)


def _n_decimals(value: Any) -> int:
    return -int(Decimal(str(value)).as_tuple().exponent)


def _fits(kind: pa.DataType, value: Any) -> bool:
    low, high = (0, 2**64 - 1) if kind == pa.uint64() else (-(2**63), 2**63 - 1)
    return low <= int(value) <= high
