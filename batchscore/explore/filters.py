"""Filters of the Explorer's frames, in the form that Dask and pyarrow have: what they ask for is all that leaves the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.keys import ACCOUNT_ID

Filter = tuple[str, str, Any]
Filters = Sequence[Filter] | Sequence[Sequence[Filter]]


def expression_of(filters: Filters | None, id_type: pa.DataType) -> pc.Expression | None:
    """``[(column, op, value), …]``, all of which must hold, or a list of such lists, one of which must; None: every row.

    Raises:
        TypeError: an account id is compared with what is no id: a float may have lost its last digits.
        ValueError: an unknown operator.
    """
    if not filters:
        return None
    found: pc.Expression = pq.filters_to_expression([[_exact(one, id_type) for one in group] for group in _groups(filters)])
    return found


def columns_of(filters: Filters | None) -> tuple[str, ...]:
    """The columns that filters ask for, each once."""
    return tuple(dict.fromkeys(column for group in _groups(filters or ()) for column, _, _ in group))


def _groups(filters: Filters) -> Sequence[Sequence[Filter]]:
    return filters if _is_nested(filters) else [[one for one in filters if isinstance(one, tuple)]]


def _is_nested(filters: Filters) -> TypeGuard[Sequence[Sequence[Filter]]]:
    return bool(filters) and not isinstance(filters[0][0], str)


def _exact(one: Filter, id_type: pa.DataType) -> Filter:
    column, op, value = one
    if column != ACCOUNT_ID:
        return one
    wanted = str if pa.types.is_string(id_type) else int
    values = list(value) if op in {"in", "not in"} else [value]
    if not all(isinstance(each, wanted) and not isinstance(each, bool) for each in values):
        msg = f"account ids are compared with {wanted.__name__} alone"
        raise TypeError(msg)
    held = pa.array(values, id_type)
    return column, op, held if op in {"in", "not in"} else held[0]
