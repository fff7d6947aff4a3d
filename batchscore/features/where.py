"""Which rows pass a filter (`batchscore.where`), and what a column of which type can be compared with.

A filter sees a column as it is in the file. What cannot be compared exactly is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.where import LISTS, NULLS, Condition, Where

Mask = npt.NDArray[np.bool_]

_COMPARES: Final = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_MAX_DECIMALS: Final = 19
_EXACT_IN_FLOAT64: Final = 2**53


def refusal_of(kind: pa.DataType, condition: Condition) -> str | None:
    """Why a column of that type cannot be compared so; None when it can. A column of nothing but nulls can."""
    if pa.types.is_null(kind) or condition.op in NULLS:
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
    if pa.types.is_decimal(kind) and any(_n_decimals(value) > _MAX_DECIMALS for value in condition.values):
        return f"{kind} is compared with numbers of at most {_MAX_DECIMALS} decimals"
    if not all(_fits(_compared_as(kind), value) for value in condition.values):
        return f"{kind} is not compared exactly with a number as large, or small, as that"
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
    if condition.op in NULLS:
        missing: Mask = pc.is_null(values, nan_is_null=True).to_numpy()
        return missing if condition.op == "is" else ~missing
    if pa.types.is_null(values.type):
        return np.zeros(len(values), np.bool_)
    kind = _compared_as(values.type)
    held = values.cast(kind)
    wanted = pa.array(_typed(condition.values, kind), kind)
    if condition.op in LISTS:
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
    """Whether a value has a place in the type that it is compared as."""
    if pa.types.is_integer(kind):
        low, high = (0, 2**64 - 1) if kind == pa.uint64() else (-(2**63), 2**63 - 1)
        return bool(low <= value <= high)
    if pa.types.is_decimal(kind):
        return bool(abs(Decimal(str(value))) < 10 ** (kind.precision - kind.scale))
    return not pa.types.is_floating(kind) or isinstance(value, float) or abs(value) <= _EXACT_IN_FLOAT64
