"""Accounts from a live table: looked at when planning, then read once, in pages by key, up to a bound fixed at the start.

What a database is asked stands in `mysql` and `sqlite`; here is which, and what is the same of both. Every page is its own
short read; there is no OFFSET and no long snapshot. Pages follow the key's own collation, whatever it is: the bytes of keys are
put in order after reading. Table and column names are quoted, so a hostile name is just a name. The database is reached by the
*name* of its URL; the URL stands in no message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Final

import pyarrow as pa
import sqlalchemy as sa

from batchscore.database import is_mysql, reading_engine, translated
from batchscore.errors import Problem, Refused
from batchscore.features.tables import AccountsTable
from batchscore.keys import IdKind
from batchscore.plan import KeyBound, rows_of
from batchscore.settings import database_url
from batchscore.sources import mysql, sqlite
from batchscore.sources.brake import Brake
from batchscore.sources.canonical import Place
from batchscore.sources.load import gentle_problems
from batchscore.sources.mysql_columns import Role, columns_of
from batchscore.sources.mysql_ranges import balanced_ranges, ranges_from_below
from batchscore.sources.text_times import with_moments
from batchscore.spec import SqlSource
from batchscore.spelling import did_you_mean

COUNTED_ROWS: Final = 10_001  # of MySQL: no more are counted


def opened(source: SqlSource) -> AbstractContextManager[sa.Engine]:
    """An engine that only reads; its connections end with the block."""
    return reading_engine(database_url(source.url))


@contextmanager
def connected(source: SqlSource) -> Iterator[sa.Connection]:
    """A connection, whose errors are told as ours."""
    with opened(source) as engine, translated(where=f"url: {source.url}"), engine.connect() as connection:
        yield connection


def inspect_table(
    source: SqlSource,
    accounts: AccountsTable,
    columns: Iterable[str],
    groups: Sequence[str] = (),
    categories: Collection[str] = (),
    kind: IdKind | None = None,
) -> tuple[dict[str, str | int], tuple[Problem, ...]]:
    """What planning may know of a live table: its rows now and its columns' types (observed), and what is wrong with it.

    ``groups``: columns that name groups. ``categories``: those of the ``columns`` that must be text. ``kind``: of account ids. Of
    MySQL the rows are the server's own estimate, which may be far off: counting them would read a whole index.

    Raises:
        Refused: ``table_missing`` or ``secret_missing``.
        TryAgain: ``database_away``.
    """
    roles = _roles(accounts, columns, groups, categories)
    # A column is read for its first use; where it is a category or names a group besides, it must do for that, too.
    more: list[tuple[str, Role]] = [*((name, "category") for name in categories), *((name, "segment") for name in groups)]
    uses = list(dict.fromkeys([*roles.items(), *more]))
    declared: Mapping[str, object]
    with connected(source) as connection:
        refuse_missing_table(connection, source, accounts.table)
        observed: dict[str, str | int] = dict([observed_rows(connection, source, accounts.table)])
        if is_mysql(connection):
            declared = {name: column.declared for name, column in columns_of(connection, source.table).items()}
            found = mysql.problems_of(connection, source, accounts.table, uses, kind)
        else:
            declared = sqlite.types_of(connection, source.table)
            found = sqlite.problems_of(source, accounts.table, declared, uses)
        problems = [*_missing(roles, declared, accounts.table), *found]
        if source.reread is not None:
            what = "accounts are read anew in each run"
            problems.append(Problem(where=f"sources.{accounts.table}", what=what, remedy="remove reread, which is of events"))
        problems += gentle_problems(connection, source, accounts.table)
    return observed | {f"column {accounts.table}.{name}": str(said) for name, said in sorted(declared.items())}, tuple(problems)


def refuse_missing_table(connection: sa.Connection, source: SqlSource, table: str) -> None:
    """Raise Refused ``table_missing`` unless the source's table or view is there; ``table`` is its name in the feature set."""
    inspector = sa.inspect(connection)
    there = [*inspector.get_table_names(), *inspector.get_view_names()]
    if source.table not in there:
        raise Refused(
            "table_missing",
            f"the database {source.url!r} has no table {source.table!r}",
            where=f"sources.{table}",
            remedy=did_you_mean(source.table, there, otherwise="check the table's name and the URL"),
        )


def _missing(names: Iterable[str], found: Collection[str], table: str) -> Iterator[Problem]:
    for name in names:
        if name not in found:
            remedy = did_you_mean(name, found, otherwise="check the column's name")
            yield Problem(where=f"{table}.{name}", what="column_missing: is not among the columns", remedy=remedy)


def key_ranges(source: SqlSource, accounts: AccountsTable, kind: IdKind) -> list[tuple[KeyBound | None, KeyBound | None]]:
    """Ranges (low, high] of keys to read: one of a SQLite table, as many as its rows ask for of a MySQL one; never none."""
    with opened(source) as engine:
        if is_mysql(engine):
            key = mysql.ready_key(engine, source, accounts.key)
            if key.unique:
                bounds = balanced_ranges(engine, source, key, at_a_time=Brake(source).most_reads or 1)
            else:
                bounds = ranges_from_below(engine, source, key, None)
            return list(pairwise(bounds)) or [(None, None)]
    with connected(source) as connection:
        return [(None, sqlite.largest_key(connection, source, accounts, kind))]


def observed_rows(connection: sa.Connection, source: SqlSource, table: str) -> tuple[str, int]:
    """What is observed of a table's rows, and how many: of MySQL what the server estimates, exact where they are few.

    They are all rows: to count those that a filter keeps would be to read the table.
    """
    rows = sa.table(sa.sql.quoted_name(source.table, quote=True))
    if not is_mysql(connection):
        return rows_of(table), int(connection.execute(sa.select(sa.func.count()).select_from(rows)).scalar_one())
    asked = sa.text(
        "SELECT MAX(table_rows) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :name"
    )
    estimate = int(connection.execute(asked, {"name": source.table}).scalar_one() or 0)
    if estimate < COUNTED_ROWS:  # also of a view, and of a table whose statistics were never made
        some = sa.select(sa.literal(1)).select_from(rows).limit(COUNTED_ROWS).subquery()
        estimate = int(connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())
    return rows_of(table, estimated=True), estimate


def read_pages(  # noqa: PLR0913 (what of a table, and the two that few callers need)
    source: SqlSource,
    accounts: AccountsTable,
    columns: Sequence[str],
    kind: IdKind,
    bounds: tuple[KeyBound | None, KeyBound | None],
    groups: Sequence[str] = (),
    *,
    categories: Collection[str] = (),
) -> Iterator[tuple[pa.Table, Place]]:
    """Raw rows with keys in (low, high], a page at a time; without a low, first those whose key is null.

    ``categories``, of the ``columns``, are text. The columns ``groups`` come as text, unless a feature reads them too.

    Raises:
        Refused: ``id_physical_type`` or ``column_type``: a key that is no integer or text, as SQLite allows in any column.
        PartitionError: ``column_type``: values of one column that no single type holds.
    """
    roles = _roles(accounts, columns, groups, categories)
    with opened(source) as engine:
        if is_mysql(engine):
            for page, place in mysql.pages_of(engine, source, bounds, roles):
                yield with_moments(page, accounts.times.values()), place
            return
    low, high = bounds
    assert low is None, "a SQLite table is one range"
    assert not isinstance(high, tuple)
    with connected(source) as connection:
        yield from sqlite.pages_of(connection, source, accounts, kind, roles, high)


def _roles(
    accounts: AccountsTable, columns: Iterable[str], groups: Iterable[str], categories: Collection[str]
) -> dict[str, Role]:
    """What each column to read is for, the key first. A group that a feature reads too is what it is to the feature."""
    times: dict[str, Role] = {time.column: "time" for time in accounts.times.values()}
    roles: dict[str, Role] = {accounts.key: "key", **times}
    for name in columns:
        roles.setdefault(name, "category" if name in categories else "number")
    for name in groups:
        roles.setdefault(name, "segment")
    return roles
