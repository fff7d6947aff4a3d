"""Accounts from a live MySQL table: cut into balanced ranges of keys, read a page at a time, each page a short read of its own.

Every column is asked for as an expression whose result is exact in any driver (a signed or unsigned 64-bit integer, a double,
or text), so PyMySQL and connectorx give the same values; a type without such an expression is refused by its name. Keys are
paged in their own collation and ordered by their bytes after reading. No OFFSET, no snapshot that lasts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from batchscore.database import read
from batchscore.errors import PartitionError, Problem
from batchscore.features.feature_set import AccountsTable
from batchscore.sources.mysql_fast import FastReader
from batchscore.spec import SqlSource

RANGE_ROWS: Final = 200_000  # of one freeze partition, about; what a lost attempt reads again
FIRST_PAGE_ROWS: Final = 10_000
MOST_PAGE_ROWS: Final = 250_000  # a whole range where the server is quick
ZERO_DATE: Final = -(2**63 - 1)  # what we ask for in place of '0000-00-00', which is neither a date nor null

Role = Literal["key", "time", "number", "category", "segment"]
_INTEGERS: Final = {"tinyint", "smallint", "mediumint", "int", "bigint"}
_TEXTS: Final = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "uuid"}
_BYTES: Final = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_MOMENTS: Final = {"datetime", "date", "timestamp"}
_MOST_EXACT_DIGITS: Final = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class MySqlColumn:
    """A column as information_schema has it: ``kind`` such as ``bigint``, ``declared`` such as ``bigint(20) unsigned``."""

    name: str
    kind: str
    declared: str
    precision: int | None
    scale: int | None

    def asked_as(self, role: Role, quoted: str) -> tuple[str, pa.DataType] | None:
        """The expression to select, and the Arrow type of its values; None when the type has no exact home in that role."""
        asked = None
        is_whole = self.kind in _INTEGERS or (
            self.kind == "decimal" and self.scale == 0 and (self.precision or 99) <= _MOST_EXACT_DIGITS
        )
        if is_whole and role != "category":
            whole = _whole(quoted, unsigned="unsigned" in self.declared)
            asked = (f"CAST({quoted} AS CHAR)", pa.string()) if role == "segment" else whole
        elif role == "number" and self.kind in {"bit", "year"}:
            asked = _whole(quoted, unsigned=True)
        elif role == "number" and self.kind in {"float", "double"}:
            asked = f"CAST({quoted} AS DOUBLE)", pa.float64()
        elif role != "number" and self.kind in _TEXTS:
            asked = f"CONVERT({quoted} USING utf8mb4)", pa.string()
        elif role == "key" and self.kind in _BYTES:
            asked = f"HEX({quoted})", pa.binary()
        elif role == "time" and self.kind in _MOMENTS:
            asked = _moment(quoted, self.kind)
        return asked


def _whole(quoted: str, *, unsigned: bool) -> tuple[str, pa.DataType]:
    return (f"CAST({quoted} AS UNSIGNED)", pa.uint64()) if unsigned else (f"CAST({quoted} AS SIGNED)", pa.int64())


def _moment(quoted: str, kind: str) -> tuple[str, pa.DataType]:
    """Microseconds since 1970: of a TIMESTAMP in UTC whatever the session's zone is, of others as they are written."""
    if kind == "timestamp":
        exact, arrow = f"CAST(UNIX_TIMESTAMP({quoted}) * 1000000 AS SIGNED)", pa.timestamp("us", "UTC")
    else:
        exact, arrow = f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {quoted})", pa.timestamp("us")
    return f"CASE WHEN {quoted} IS NULL THEN NULL ELSE COALESCE({exact}, {ZERO_DATE}) END", arrow


def columns_of(connection: sa.Connection, table: str) -> dict[str, MySqlColumn]:
    """The columns of a table or view of the connection's database, by name."""
    query = sa.text(
        "SELECT column_name AS name, data_type AS kind, column_type AS declared, numeric_precision AS prec, "
        "numeric_scale AS scale FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = :table"
    )
    rows = connection.execute(query, {"table": table}).all()
    return {
        row.name: MySqlColumn(name=row.name, kind=row.kind, declared=row.declared, precision=row.prec, scale=row.scale)
        for row in rows
    }


def problems_of(
    connection: sa.Connection, source: SqlSource, accounts: AccountsTable, roles: Iterable[tuple[str, Role]]
) -> Iterator[Problem]:
    """What is wrong with columns that are there: types without an exact home, and a key that no index begins with."""
    found = columns_of(connection, source.table)
    for name, role in roles:
        column = found.get(name)
        if column is not None and column.asked_as(role, "x") is None:
            inexact = role == "key" and column.kind in {"float", "double", "decimal"}
            reason = "id_physical_type" if inexact else "column_type"
            yield Problem(
                where=f"{accounts.table}.{name}",
                what=f"{reason}: is {column.declared}, which has no exact place as a {role}",
                remedy="read a view that casts it to what it means: an integer, a double, text or a datetime",
            )
    if accounts.key in found and not _is_indexed(connection, source.table, accounts.key):
        quoted = connection.dialect.identifier_preparer.quote_identifier
        yield Problem(
            where=f"{accounts.table}.{accounts.key}",
            what="key_not_indexed: no index begins with the key, so every page would read the whole table",
            remedy=f"CREATE INDEX by_key ON {quoted(source.table)} ({quoted(accounts.key)})",
        )


def _is_indexed(connection: sa.Connection, table: str, key: str) -> bool:
    """A view has no indexes of its own, and is believed to reach those of its table."""
    query = sa.text(
        "SELECT (SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = :table "
        "AND seq_in_index = 1 AND column_name = :key) + (SELECT COUNT(*) FROM information_schema.views "
        "WHERE table_schema = DATABASE() AND table_name = :table)"
    )
    return bool(connection.execute(query, {"table": table, "key": key}).scalar_one())


def cut_ranges(engine: sa.Engine, source: SqlSource, key_name: str) -> list[tuple[Any, Any]]:
    """Ranges (low, high] of keys up to the largest now, of `RANGE_ROWS` rows each (the last of half to one and a half of that).

    Empty for an empty table.

    Each bound costs one read of so many index entries, of which only the bound comes back: sparse or skewed keys, integers or
    text in any collation, are the same to it. Nothing is counted over the whole table.
    """
    table = sa.table(sa.sql.quoted_name(source.table, quote=True), sa.column(sa.sql.quoted_name(key_name, quote=True)))
    key = table.c[key_name]
    where = f"table {source.table}"
    largest = sa.select(key).where(key.is_not(None)).order_by(key.desc()).limit(1)
    row = read(engine, partial(_first, largest), where=where)
    if row is None:
        return []
    high = row[0]
    bounds: list[Any] = [None]
    while True:
        left = sa.select(key.label("k")).where(key <= high)
        left = left if bounds[-1] is None else left.where(key > bounds[-1])
        some = left.order_by(key).limit(RANGE_ROWS).subquery()
        found = read(engine, partial(_first, sa.select(sa.func.max(some.c.k), sa.func.count()).select_from(some)), where=where)
        bound, n_rows = found  # an aggregate has one row
        if n_rows < RANGE_ROWS or bound == high:
            if n_rows < RANGE_ROWS / 2 and len(bounds) > 1:
                bounds.pop()
            break
        bounds.append(bound)
    return list(zip(bounds, [*bounds[1:], high], strict=True))


def _first(query: sa.sql.expression.Executable, connection: sa.Connection) -> Any:
    return connection.execute(query).first()


class PageReader:
    """Reads one range of a table in pages whose size follows their time. Values come as `MySqlColumn.asked_as` says."""

    def __init__(
        self,
        engine: sa.Engine,
        source: SqlSource,
        accounts: AccountsTable,
        roles: Sequence[tuple[str, Role]],
        fast: FastReader | None,
    ) -> None:
        self._engine, self._source, self._fast = engine, source, fast
        if fast is not None:
            fast.start()
        self._where = f"table {source.table}"
        self._quote = engine.dialect.identifier_preparer.quote_identifier
        found = read(engine, lambda connection: columns_of(connection, source.table), where=self._where)
        self._asked: dict[str, tuple[str, pa.DataType]] = {}
        for name, role in roles:
            column = found.get(name)
            asked = column.asked_as(role, self._quote(name)) if column else None
            if asked is None:
                raise PartitionError(
                    "column_type", "is gone, or changed its type since the run was planned", where=f"{self._where}: {name}"
                )
            self._asked[name] = asked
        self._key = accounts.key
        self._kind = found[accounts.key].kind
        self._n_page = min(MOST_PAGE_ROWS, (fast.n_page if fast else None) or FIRST_PAGE_ROWS)

    def count_null_keys(self) -> int:
        """Rows whose key is null, which no range holds."""
        query = f"SELECT COUNT(*) FROM {self._quote(self._source.table)} WHERE {self._quote(self._key)} IS NULL"  # noqa: S608
        return int(read(self._engine, lambda connection: connection.exec_driver_sql(query).scalar_one(), where=self._where))

    def rows_without_key(self, n_rows: int) -> pa.Table:
        """So many rows of nulls: of an account without a key nothing is used but that it is there."""
        return pa.table(
            {name: pa.nulls(n_rows, pa.string() if pa.types.is_binary(kind) else kind) for name, (_, kind) in self._asked.items()}
        )

    def pages(self, low: int | str | None, high: int | str) -> Iterator[pa.Table]:
        """Rows with keys in (low, high], by key in its collation. Keys that it holds equal come in one page."""
        is_last = False
        while not is_last:
            began = time.monotonic()
            page = self._read(self._between(low, high) + f" LIMIT {self._n_page}", fast=self._fast)
            is_last = len(page) < self._n_page  # one statement sees one moment: there was no more
            if not is_last:
                page = self._with_whole_group(page)
                self._n_page = _next_size(self._n_page, time.monotonic() - began, self._source.gentle.page_s)
            if len(page):
                yield page
                low = self._last_key(page)
        if self._fast is not None:
            self._fast.n_page = self._n_page

    def _with_whole_group(self, page: pa.Table) -> pa.Table:
        """The page with all keys that the collation holds equal to its last: they may straddle the page's end."""
        key = self._quote(self._key)
        same = self._read(f"{self._select()} WHERE {key} = {_literal(self._last_key(page))}", fast=None)
        others = page.filter(pc.invert(pc.is_in(page[self._key], value_set=same[self._key].combine_chunks())))
        return pa.concat_tables([others, same])

    def _last_key(self, page: pa.Table) -> Any:
        return page[self._key][-1].as_py()

    def _select(self) -> str:
        selected = ", ".join(f"{expression} AS c{n}" for n, (expression, _) in enumerate(self._asked.values()))
        return f"SELECT {selected} FROM {self._quote(self._source.table)}"  # noqa: S608 (names quoted, keys as digits or hex)

    def _between(self, low: int | str | None, high: int | str) -> str:
        key = self._quote(self._key)
        above = "" if low is None else f"{key} > {_literal(low)} AND "
        return f"{self._select()} WHERE {above}{key} <= {_literal(high)} ORDER BY {key}"

    def _read(self, query: str, *, fast: FastReader | None) -> pa.Table:
        raw = fast.read(query) if fast else None
        if raw is None:
            rows = read(self._engine, lambda connection: _driver_rows(connection, query), where=self._where)
            raw = _as_arrow(rows, [arrow for _, arrow in self._asked.values()])
        made = {
            name: _exact(raw.column(n), arrow, f"{self._where}: {name}")
            for n, (name, (_, arrow)) in enumerate(self._asked.items())
        }
        return pa.table(made)


def _literal(value: Any) -> str:
    """A key as SQL that no quote can leave: digits, or the bytes of its UTF-8."""
    if isinstance(value, int):
        return str(value)
    return f"_utf8mb4 X'{str(value).encode().hex()}'"


def _next_size(n_rows: int, seconds: float, wanted_s: float) -> int:
    """Towards ``wanted_s`` a page, by a factor of at most four at a time."""
    factor = min(4.0, max(0.25, wanted_s / max(seconds, 1e-6)))
    return int(min(MOST_PAGE_ROWS, max(100, n_rows * factor)))


def _driver_rows(connection: sa.Connection, query: str) -> Sequence[Any]:
    return connection.exec_driver_sql(query.replace("%", "%%")).fetchall()


def _as_arrow(rows: Sequence[Any], kinds: Sequence[pa.DataType]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    arrays = [pa.array(values, _carried(kind)) for values, kind in zip(columns, kinds, strict=True)]
    return pa.table(arrays, names=[f"c{n}" for n in range(len(kinds))])


def _carried(kind: pa.DataType) -> pa.DataType:
    """What a driver hands over for a column of that type: times as integers, bytes as their hex."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    return pa.string() if pa.types.is_binary(kind) else kind


def _exact(column: pa.ChunkedArray, kind: pa.DataType, where: str) -> pa.Array:
    """The column in its type; checked, never rounded.

    Raises:
        PartitionError: ``column_type`` or ``invalid_utf8``.
    """
    array = column.combine_chunks()
    carried = _carried(kind)
    if array.type != carried:  # connectorx: 64-bit offsets of text
        array = array.cast(carried)
    if pa.types.is_timestamp(kind):
        if pc.any(pc.equal(array, ZERO_DATE)).as_py():
            raise PartitionError("column_type", "holds a zero date, which is no time", where=where, remedy="make it null")
        return array.cast(kind)
    if pa.types.is_binary(kind):
        held = pa.array([None if text is None else bytes.fromhex(text) for text in array.to_pylist()], pa.binary())
        try:
            text = held.cast(pa.string())
        except pa.ArrowInvalid:
            raise PartitionError("invalid_utf8", "holds bytes that are not UTF-8", where=where) from None
        return text
    return array
