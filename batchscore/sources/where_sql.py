"""A source's filter as SQL, which keeps a row exactly where `features.where.mask_of` keeps what it is read as.

Columns are quoted names of the table, values are written as digits or as the hex of their bytes, or are parameters: there is
no SQL in a filter that anything could break out of. Text is compared by its bytes, whatever its collation. The whole is wrapped
so that a server reads along the paging key, and not along another index which it would have to sort: however few rows are
kept, no statement reads more than its range.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from typing import Final

import pyarrow as pa

from batchscore.errors import PartitionError, Problem
from batchscore.features.where import refusal_of
from batchscore.sources.mysql_columns import MySqlColumn, resulting
from batchscore.where import LISTS, NULLS, Condition, Where, columns_of

_OPERATORS: Final = {"==": "=", "!=": "<>", "in": "IN", "not in": "NOT IN"}  # the others are written alike
_IN_SQLITE: Final = range(-(2**63), 2**63)  # integers

Written = Callable[[Condition], str]


def problems_in_mysql(where: Where, found: Mapping[str, MySqlColumn], table: str) -> Iterator[Problem]:
    """Conditions on columns that are not there, or are of a type that the value cannot be compared with exactly."""
    yield from _missing(where, found, table)
    for condition in _conditions(where):
        column = found.get(condition.column)
        if column is not None and condition.op not in NULLS:
            asked = column.asked_as("value", "x")
            why = f"is {column.declared}, which is not compared" if asked is None else refusal_of(resulting(asked[1]), condition)
            if why is not None:
                remedy = "compare it with what it holds (a boolean is 1 or 0), or read a view"
                yield Problem(where=f"{table}.{condition.column}", what=f"column_type: {why}", remedy=remedy)


def problems_in_sqlite(where: Where, found: Collection[str], table: str) -> Iterator[Problem]:
    """As `problems_in_mysql`; any column may hold anything there, so only what no value can be is refused."""
    yield from _missing(where, found, table)
    for condition in _conditions(where):
        beyond = any(isinstance(value, int) and value not in _IN_SQLITE for value in condition.values)
        if beyond or any(isinstance(value, bool) for value in condition.values):
            what = "column_type: is compared with what SQLite does not hold"
            remedy = "write a boolean as 1 or 0, and integers below 2^63"
            yield Problem(where=f"{table}.{condition.column}", what=what, remedy=remedy)


def in_mysql(where: Where, found: Mapping[str, MySqlColumn], quote: Callable[[str], str]) -> str:
    """The condition, to be joined to others by AND. ``quote``: a column's name → as it stands in a statement, with its table's.

    Raises:
        PartitionError: ``column_type``: a column of it is gone, or changed its type, since the run was planned.
    """

    def written(condition: Condition) -> str:
        column, quoted = found.get(condition.column), quote(condition.column)
        if condition.op in NULLS and column is not None:
            return f"{quoted} {condition.op.upper()} NULL"
        asked = column.asked_as("value", quoted) if column is not None else None
        if column is None or asked is None or refusal_of(resulting(asked[1]), condition) is not None:
            what = "is gone, or changed its type since the run was planned"
            raise PartitionError("column_type", what, where=quoted)
        expression, kind = asked
        if pa.types.is_string(kind):
            return _compared(f"CAST({expression} AS BINARY)", condition, _hex)
        if pa.types.is_decimal(kind):
            return _compared(quoted, condition, lambda value: format(Decimal(str(value)), "f"))
        return _compared(expression, condition, _double if pa.types.is_floating(kind) else str)

    return f"IF({_any_of(where, written)}, 1, 0) = 1"


def in_sqlite(where: Where, quote: Callable[[str], str]) -> tuple[str, dict[str, int | float | str]]:
    """As `in_mysql`, with the values as parameters. What the table holds of another kind satisfies none: nothing is converted."""
    parameters: dict[str, int | float | str] = {}

    def named(value: float | str) -> str:
        parameters[name := f"kept_{len(parameters)}"] = value
        return f":{name}"

    def written(condition: Condition) -> str:
        quoted = quote(condition.column).replace(":", r"\:")
        if condition.op in NULLS:
            return f"{quoted} {condition.op.upper()} NULL"
        if isinstance(condition.values[0], str):
            return f"(typeof({quoted}) = 'text' AND {_compared(f'(+{quoted}) COLLATE BINARY', condition, named)})"
        return f"(typeof({quoted}) IN ('integer', 'real') AND {_compared(f'+{quoted}', condition, named)})"

    return f"({_any_of(where, written)})", parameters


def _any_of(where: Where, written: Written) -> str:
    return " OR ".join(f"({' AND '.join(map(written, conditions))})" for conditions in where)


def _compared(expression: str, condition: Condition, literal: Callable[[bool | int | float | str], str]) -> str:
    literals = [literal(value) for value in condition.values]
    compared_with = f"({', '.join(literals)})" if condition.op in LISTS else literals[0]
    return f"{expression} {_OPERATORS.get(condition.op, condition.op)} {compared_with}"


def _hex(value: float | str) -> str:
    return f"X'{str(value).encode().hex()}'"


def _double(value: float | str) -> str:
    """As a number that MySQL takes for a double, and not for a decimal."""
    return f"{float(value):.17e}"


def _missing(where: Where, found: Collection[str], table: str) -> Iterator[Problem]:
    for name in sorted(columns_of(where) - set(found)):
        what = "column_missing: is not among the columns"
        yield Problem(where=f"{table}.{name}", what=what, remedy="check the source's where")


def _conditions(where: Where) -> Iterator[Condition]:
    return (condition for conditions in where for condition in conditions)
