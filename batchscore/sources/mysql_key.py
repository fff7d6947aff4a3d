"""The key by which a MySQL table is paged: one column or several, in their own order and collation, along an index.

A position in the table is a *bound*: the key's values as they can be written in a query exactly, integers as themselves, text
as text, bytes as hex, decimals and times as their digits. MySQL does not look a comparison of rows, ``(a, b) > (x, y)``, up in
an index; written out, with the first column's part once more, it does (tests count what the server reads).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import pyarrow as pa
import sqlalchemy as sa

from batchscore.database import quoted
from batchscore.errors import PartitionError, Problem
from batchscore.plan import KeyBound
from batchscore.sources.mysql_columns import BYTES, TEXTS, MySqlColumn, as_whole, columns_of
from batchscore.spec import SqlSource

_DIGITS: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?)?")
_HEX: Final = re.compile(r"([0-9A-F]{2})*")
_OTHERS: Final = {"year", "bit", "decimal", "date", "datetime", "timestamp"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PagingKey:
    """The columns, first the one that weighs most. ``unique``: no two rows are equal in them, also not to their collation.

    ``quoted``: their names with the table's, since to ORDER BY a bare one may be what is selected as it.
    """

    columns: tuple[MySqlColumn, ...]
    unique: bool
    quoted: tuple[str, ...]

    @property
    def needs_our_session(self) -> bool:
        """Whether its values mean something else in a session whose time zone is not UTC."""
        return any(column.kind == "timestamp" for column in self.columns)

    @property
    def nullable(self) -> bool:
        """Whether rows may stand outside every range, since their key is null."""
        return any(column.nullable for column in self.columns)

    @property
    def order(self) -> str:
        """What follows ORDER BY."""
        return ", ".join(self.quoted)

    @property
    def asked(self) -> tuple[str, ...]:
        """The expressions whose values are a bound."""
        return tuple(_asked(column, quoted) for column, quoted in zip(self.columns, self.quoted, strict=True))

    @property
    def kinds(self) -> dict[str, pa.DataType]:
        """Each of those expressions → the type that a driver hands over for it."""
        return {
            said: (pa.uint64() if _is_unsigned(column) else pa.int64()) if _is_number(column) else pa.string()
            for said, column in zip(self.asked, self.columns, strict=True)
        }

    def between(self, low: Sequence[int | str] | None, high: Sequence[int | str]) -> str:
        """The condition that keys lie in (low, high]."""
        if low is not None and len(low) == 1 and isinstance(low[0], int) and self.columns[0].is_whole:
            return f"{self.quoted[0]} BETWEEN {low[0] + 1} AND {high[0]}"  # asked of each row: one comparison, and not two
        above = "" if low is None else f"{self._beyond('>', '>', low)} AND "
        return above + self._beyond("<", "<=", high)

    def after(self, low: Sequence[int | str] | None) -> str:
        """The condition that keys lie above ``low``, or are there at all."""
        return self._beyond(">", ">", low) if low is not None else " AND ".join(f"{name} IS NOT NULL" for name in self.quoted)

    def equal(self, bound: Sequence[int | str]) -> str:
        """The condition that keys are ``bound``, to their collation."""
        return " AND ".join(f"{name} = {literal}" for name, literal in self._written(bound))

    def _written(self, bound: Sequence[int | str]) -> list[tuple[str, str]]:
        literals = [_literal(column, value) for column, value in zip(self.columns, bound, strict=True)]
        return list(zip(self.quoted, literals, strict=True))

    def _beyond(self, strictly: str, last: str, bound: Sequence[int | str]) -> str:
        """``strictly`` is < or >; ``last`` is how the last column may compare."""
        *before, (name, literal) = self._written(bound)
        said = f"{name} {last} {literal}"
        for name, literal in reversed(before):
            said = f"({name} {strictly} {literal} OR ({name} = {literal} AND {said}))"
        return f"{before[0][0]} {strictly}= {before[0][1]} AND {said}" if before else said


def _is_number(column: MySqlColumn) -> bool:
    return column.is_whole or column.kind in {"year", "bit"}


def _asked(column: MySqlColumn, quoted: str) -> str:
    if column.kind in TEXTS - {"uuid"}:
        return f"CONVERT({quoted} USING utf8mb4)"
    if column.kind in BYTES:
        return f"HEX({quoted})"
    if column.is_whole:
        return as_whole(column, quoted)
    if _is_number(column):  # YEAR, BIT
        return f"CAST({quoted} AS UNSIGNED)"
    return f"CAST({quoted} AS CHAR)"


def _is_unsigned(column: MySqlColumn) -> bool:
    return "unsigned" in column.declared or column.kind in {"year", "bit"}


def _literal(column: MySqlColumn, value: int | str) -> str:
    """A value as SQL that no quote can leave: digits, or the hex of its bytes."""
    if isinstance(value, int):
        return str(value)
    if column.kind in TEXTS:
        return f"_utf8mb4 X'{value.encode().hex()}'"
    if column.kind in BYTES and _HEX.fullmatch(value):
        return f"X'{value}'"
    if column.kind == "decimal" and _DIGITS.fullmatch(value):
        return value
    if column.kind in {"date", "datetime", "timestamp"} and _TIME.fullmatch(value):
        return f"'{value}'"
    raise PartitionError("column_type", "changed its type since the run was planned", where=column.name)


def as_bound(key: KeyBound) -> tuple[int | str, ...]:
    """A bound of one column may stand by itself."""
    return key if isinstance(key, tuple) else (key,)


def paging_key(
    connection: sa.Connection, source: SqlSource, id_column: str, found: dict[str, MySqlColumn] | None = None
) -> PagingKey:
    """The key of the table: as the source declares it, else the account id.

    Raises:
        PartitionError: ``column_type``: a column of it is gone.
    """
    found = columns_of(connection, source.table) if found is None else found
    names = source.key or (id_column,)
    if gone := [name for name in names if name not in found]:
        raise PartitionError("column_type", "is gone since the run was planned", where=f"table {source.table}: {gone[0]}")
    return PagingKey(
        columns=tuple(found[name] for name in names),
        unique=any(unique and columns == list(names) for unique, columns in _indexes(connection, source.table)),
        quoted=tuple(quoted(connection, source.table, name) for name in names),
    )


def problems_of_key(
    connection: sa.Connection, source: SqlSource, table: str, id_column: str, found: dict[str, MySqlColumn]
) -> Iterator[Problem]:
    """What is wrong with the key of a table whose columns are ``found``: of a type without an order of ours, or no index."""
    names = source.key or (id_column,)
    quote = partial(quoted, connection)
    for name in names:
        column, where = found.get(name), f"{table}.{name}"
        if column is None:
            if source.key:
                yield Problem(where=where, what="column_missing: is not among the columns", remedy="check the source's key")
        elif source.key and not (column.is_whole or column.kind in TEXTS | BYTES | _OTHERS):
            what = f"column_type: is {column.declared}, and a table cannot be paged by it exactly"
            yield Problem(where=where, what=what, remedy="name another key of the table: key: [a, b]")
        elif len(names) > 1 and column.nullable:
            what = "key_not_indexed: may be null, and rows without a key are in no range"
            yield Problem(where=where, what=what, remedy="name the columns of the primary key: key: [a, b]")
    if any(name not in found for name in names) or _is_view(connection, source.table):
        return  # a view has no indexes of its own, and is believed to reach those of its table
    indexes = list(_indexes(connection, source.table))
    if not any(columns[: len(names)] == list(names) for _, columns in indexes):
        written = ", ".join(map(quote, names))
        primary = next((columns for unique, columns in indexes if unique), None)
        other = f" (one begins with key: [{', '.join(primary)}])" if primary else ""
        yield Problem(
            where=f"{table}.{names[0]}",
            what=f"key_not_indexed: no index begins with the key, so every page would read the whole table{other}",
            remedy=f"CREATE INDEX by_key ON {quote(source.table)} ({written})",
        )


def _is_view(connection: sa.Connection, table: str) -> bool:
    query = sa.text("SELECT COUNT(*) FROM information_schema.views WHERE table_schema = DATABASE() AND table_name = :table")
    return bool(connection.execute(query, {"table": table}).scalar_one())


def _indexes(connection: sa.Connection, table: str) -> Iterator[tuple[bool, list[str]]]:
    """(unique, columns in order) of each index over whole columns, the primary key first."""
    query = sa.text(
        "SELECT index_name AS name, non_unique AS doubled, column_name AS col, sub_part AS part "
        "FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = :table "
        "AND index_type = 'BTREE' ORDER BY index_name <> 'PRIMARY', non_unique, index_name, seq_in_index"
    )
    indexes: dict[str, tuple[bool, list[str]]] = {}
    cut: set[str] = set()  # indexes that hold a column's beginning only: from there on they order nothing
    for row in connection.execute(query, {"table": table}).all():
        columns = indexes.setdefault(row.name, (not row.doubled, []))[1]
        if row.part is not None or row.name in cut:
            cut.add(row.name)
            indexes[row.name] = False, columns
        else:
            columns.append(row.col)
    yield from indexes.values()
