"""A live MySQL table, read a page at a time along its key, each page a short read of its own.

Keys are paged in their own order and collation (`mysql_key`), every column comes as an expression that is exact in any driver
(`mysql_columns`). No OFFSET, no snapshot that lasts. While a page is at work, the fast reader fetches the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final

import pyarrow as pa
import sqlalchemy as sa

from batchscore.database import execute_text, quoted, read, translated
from batchscore.errors import PartitionError, Problem
from batchscore.keys import IdKind
from batchscore.plan import KeyBound
from batchscore.settings import database_url
from batchscore.sources.canonical import Place
from batchscore.sources.mysql_columns import MySqlColumn, Role, TypedExpression, carried, columns_of, exact, resulting
from batchscore.sources.mysql_fast import FastReader, can_read_fast, fast_reader, warm_up
from batchscore.sources.mysql_key import PagingKey, as_bound, paging_key, problems_of_key
from batchscore.sources.where_sql import in_mysql, problems_in_mysql
from batchscore.spec import IdCast, SqlSource

FIRST_PAGE_ROWS: Final = 10_000
MOST_PAGE_ROWS: Final = 200_000  # of a range that is read fast, all
Bound = tuple[int | str, ...]


def problems_of(
    connection: sa.Connection, source: SqlSource, table: str, uses: Sequence[tuple[str, Role]], kind: IdKind | None
) -> Iterator[Problem]:
    """What is wrong with columns that are there, the filter and the key. ``kind``: of the account ids, where it is known."""
    found = columns_of(connection, source.table)
    for name, role in uses:
        column = found.get(name)
        if column is not None:
            yield from _problems_of(column, role, f"{table}.{name}", kind, source.id_cast)
    yield from problems_in_mysql(source.where, found, table)
    yield from problems_of_key(connection, source, table, next(name for name, role in uses if role == "key"), found)


def _problems_of(column: MySqlColumn, role: Role, where: str, kind: IdKind | None, cast: IdCast | None) -> Iterator[Problem]:
    asked = column.asked_as(role, "x", cast)
    if asked is None:
        inexact = role == "key" and column.kind in {"float", "double", "decimal"}
        reason = "id_physical_type" if inexact else "column_type"
        as_what = f"{cast} of an account id (id_cast)" if cast and role == "key" else f"a {role}"
        yield Problem(
            where=where,
            what=f"{reason}: is {column.declared}, which has no exact place as {as_what}",
            remedy="read a view that casts it to what it means: an integer, a double, text or a datetime",
        )
    elif role == "key" and kind is not None and pa.types.is_integer(asked[1]) != (kind == "integer"):
        remedy = "declare what it becomes: id_cast: text" if column.is_whole else "set account_id to what the keys are"
        yield Problem(where=where, what=f"column_type: is {column.declared}, and account ids are {kind}s", remedy=remedy)


def asked_types(connection: sa.Connection, source: SqlSource, uses: Iterable[tuple[str, Role]]) -> pa.Schema:
    """The Arrow types in which those columns come that are there and have an exact home."""
    found = columns_of(connection, source.table)
    asked = [(name, found[name].asked_as(role, "x", source.id_cast)) for name, role in uses if name in found]
    return pa.schema([(name, resulting(one[1])) for name, one in asked if one is not None])


def ready_key(engine: sa.Engine, source: SqlSource, id_column: str) -> PagingKey:
    """The key of a table that is about to be read. Where attempts run in this process, too, their fast reader starts meanwhile.

    Raises:
        PartitionError: ``column_type``: a column of it is gone.
        TryAgain: the database is away.
    """
    if can_read_fast(url := database_url(source.url)):
        warm_up(source.url, url)
    with translated(where=f"url: {source.url}"), engine.connect() as connection:
        return paging_key(connection, source, id_column)


def pages_of(
    engine: sa.Engine, source: SqlSource, bounds: tuple[KeyBound | None, KeyBound | None], roles: Mapping[str, Role]
) -> Iterator[tuple[pa.Table, Place]]:
    """Rows with keys in (low, high], by key, a page at a time; without a low, first those whose key is null.

    At least a page without rows. Times that are text in the table stay so. Raises as `PageReader`.
    """
    low, high = bounds
    n_read = 0
    url = database_url(source.url)
    with fast_reader(source.url, url) if can_read_fast(url) else nullcontext() as fast:
        reader = PageReader(engine, source, roles, fast)
        if low is None:
            for first in range(0, n_null := reader.count_null_keys(), FIRST_PAGE_ROWS):
                page = reader.rows_without_key(min(FIRST_PAGE_ROWS, n_null - first))
                yield page, Place(source.table, n_read)
                n_read += len(page)
        for page in reader.pages(low, high) if high is not None else ():
            yield page, Place(source.table, n_read)
            n_read += len(page)
        if not n_read:
            yield reader.no_rows(), Place(source.table)


class PageReader:
    """Reads one range of a table in pages whose size follows their time. Values come as `MySqlColumn.asked_as` says."""

    def __init__(self, engine: sa.Engine, source: SqlSource, roles: Mapping[str, Role], fast: FastReader | None) -> None:
        self._engine, self._source = engine, source
        self._where = f"table {source.table}"
        self._table = quoted(engine, source.table)
        self._quote = partial(quoted, engine, source.table)
        id_column = next(name for name, role in roles.items() if role == "key")
        found = read(engine, lambda connection: columns_of(connection, source.table), where=self._where)
        self._key = read(engine, partial(paging_key, source=source, id_column=id_column, found=found), where=self._where)
        self._fast = None if self._key.needs_our_session else fast
        self._asked = self._asked_of(found, roles, in_binary=False)
        self._selected = self._expressions(self._asked)
        self._selected_fast = self._expressions(self._asked_of(found, roles, in_binary=True))
        self._key_places = [self._selected.index(expression) for expression in self._key.asked]
        self._kept = ""  # what keeps rows of a range from being read
        if source.where:
            self._kept = f" AND {in_mysql(source.where, found, self._quote)}"
        self._n_page = min(MOST_PAGE_ROWS, (fast.n_page if fast else None) or FIRST_PAGE_ROWS)

    def _asked_of(
        self, found: Mapping[str, MySqlColumn], roles: Mapping[str, Role], *, in_binary: bool
    ) -> dict[str, TypedExpression]:
        """By column, how it is asked for; the same types for either driver."""
        asked = {}
        for name, role in roles.items():
            column = found.get(name)
            expression = column.asked_as(role, self._quote(name), self._source.id_cast, in_binary=in_binary) if column else None
            if expression is None:
                raise PartitionError(
                    "column_type", "is gone, or changed its type since the run was planned", where=f"{self._where}: {name}"
                )
            asked[name] = expression
        return asked

    def _expressions(self, asked: Mapping[str, TypedExpression]) -> list[str]:
        """What to select: the columns, and the key where it is none of them."""
        return list(dict.fromkeys([*(expression for expression, _ in asked.values()), *self._key.asked]))

    def count_null_keys(self) -> int:
        """Rows whose key is null, which no range holds."""
        if not self._key.nullable:
            return 0
        query = f"SELECT COUNT(*) FROM {self._table} WHERE {self._key.quoted[0]} IS NULL{self._kept}"  # noqa: S608 (quoted names)
        return int(read(self._engine, lambda connection: execute_text(connection, query).scalar_one(), where=self._where))

    def rows_without_key(self, n_rows: int) -> pa.Table:
        """So many rows of nulls: of an account without a key nothing is used but that it is there."""
        return pa.table({name: pa.nulls(n_rows, resulting(kind)) for name, (_, kind) in self._asked.items()})

    def last_rows(self, high: KeyBound, n_rows: int) -> pa.Table:
        """The ``n_rows`` rows with the largest keys up to ``high``, the last first, whether a filter keeps them or not."""
        falling = ", ".join(f"{name} DESC" for name in self._key.quoted)
        found = self._key.between(None, as_bound(high))
        return self._made(self._by_driver(f"WHERE {found} ORDER BY {falling} LIMIT {n_rows}"))

    def no_rows(self) -> pa.Table:
        """A page without rows: the types alone."""
        return self.rows_without_key(0)

    def pages(self, low: KeyBound | None, high: KeyBound) -> Iterator[pa.Table]:
        """Rows with keys in (low, high], by key in its order, a page in as many pieces as it came in: joining them is copying."""
        since, until = None if low is None else as_bound(low), as_bound(high)
        asked: tuple[str, int, float] | None = self._ask(since, until)
        while asked is not None:
            page, ended = self._answer(asked)
            since = self._last_key(page) if len(page) else since
            if not (ended or self._key.unique):
                page = self._with_whole_group(page)
            asked = None if ended or since == until else self._ask(since, until)  # fetched while this page is at work
            for piece in page.to_batches() if len(page) else ():
                yield self._made(pa.Table.from_batches([piece]))
        if self._fast is not None:
            self._fast.n_page = self._n_page

    def _ask(self, low: Bound | None, high: Bound) -> tuple[str, int, float]:
        """Begin to read a page: which rows are asked for, how many it may have, and when that was."""
        kept = f"WHERE {self._key.between(low, high)}{self._kept}"
        which = f"{kept} ORDER BY {self._key.order} LIMIT {self._n_page}"
        if self._fast is not None:
            self._fast.ask(self._select(self._selected_fast, which))
        return which, self._n_page, time.monotonic()

    def _answer(self, asked: tuple[str, int, float]) -> tuple[pa.Table, bool]:
        """The page as it came, and whether there are no more rows."""
        which, n_rows, began = asked
        raw = self._fast.answer() if self._fast is not None else None
        seconds = time.monotonic() - began if self._fast is None or raw is None else self._fast.seconds
        page = self._by_driver(which) if raw is None else raw
        ended = len(page) < n_rows  # one statement sees one moment
        if not ended:
            self._n_page = _next_size(n_rows, seconds, self._source.gentle.page_s)
        return page, ended

    def _with_whole_group(self, page: pa.Table) -> pa.Table:
        """The page with all keys that the collation holds equal to its last: they may straddle the page's end."""
        same = self._by_driver(f"WHERE {self._key.equal(self._last_key(page))}{self._kept}")
        names = [f"c{place}" for place in self._key_places]
        theirs = same.select(names).group_by(names).aggregate([])
        page = page.cast(same.schema)
        others = page.join(theirs, keys=names, join_type="left anti", use_threads=False)
        return pa.concat_tables([others.select(page.column_names), same])

    def _last_key(self, page: pa.Table) -> Bound:
        return tuple(page.column(place)[-1].as_py() for place in self._key_places)

    def _select(self, expressions: Sequence[str], which: str) -> str:
        selected = ", ".join(f"{expression} AS c{n}" for n, expression in enumerate(expressions))
        return f"SELECT {selected} FROM {self._table} {which}"  # noqa: S608 (names quoted, keys as digits or hex)

    def _by_driver(self, which: str) -> pa.Table:
        query = self._select(self._selected, which)
        rows = read(self._engine, lambda connection: execute_text(connection, query).all(), where=self._where)
        kinds = self._key.kinds | {expression: carried(kind) for expression, kind in self._asked.values()}
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self._selected)
        arrays = [pa.array(values, kinds[said]) for values, said in zip(columns, self._selected, strict=True)]
        return pa.table(arrays, names=[f"c{n}" for n in range(len(arrays))])

    def _made(self, raw: pa.Table) -> pa.Table:
        made = {}
        for name, (expression, kind) in self._asked.items():
            made[name] = exact(raw.column(self._selected.index(expression)), kind, f"{self._where}: {name}")
        return pa.table(made)


def _next_size(n_rows: int, seconds: float, wanted_s: float) -> int:
    """Towards ``wanted_s`` a page, by a factor of at most four at a time."""
    factor = min(4.0, max(0.25, wanted_s / max(seconds, 1e-6)))
    return int(min(MOST_PAGE_ROWS, max(100, n_rows * factor)))
