"""Accounts from a live table: looked at when planning, then read once, in pages by key, up to a bound fixed at the start.

Every page is its own short read; there is no OFFSET and no long snapshot. Pages follow the key's own collation, whatever it
is: the bytes of keys are put in order after reading. Table and column names go through SQLAlchemy's quoting, so a hostile
name is just a name. The database is reached by the *name* of its URL; the URL stands in no message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, date, datetime
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from batchscore.database import is_mysql, quoted, reading_engine, translated
from batchscore.errors import PartitionError, Problem, Refused
from batchscore.features.feature_set import AccountsTable, TimeColumn
from batchscore.keys import IdKind
from batchscore.plan import KeyBound, rows_of
from batchscore.settings import database_url
from batchscore.sources.brake import Brake
from batchscore.sources.canonical import Place
from batchscore.sources.load import gentle_problems
from batchscore.sources.mysql import PageReader, problems_of
from batchscore.sources.mysql_columns import Role, columns_of
from batchscore.sources.mysql_fast import can_read_fast, fast_reader, warm_up
from batchscore.sources.mysql_key import balanced_ranges, paging_key, ranges_from_below
from batchscore.sources.where_sql import in_sqlite, problems_in_sqlite
from batchscore.spec import SqlSource

PAGE_ROWS = 10_000  # tests make it smaller
COUNTED_ROWS: Final = 10_001  # of MySQL: no more are counted
_EXACT_IN_FLOAT64: Final = 2**53
_LARGE: Final = "integers beyond 2^53"
_NO_TEXT: Final = (sa.Integer, sa.Numeric, sa.Boolean, sa.Date, sa.DateTime, sa.LargeBinary)


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
    with connected(source) as connection:
        refuse_missing_table(connection, source, accounts.table)
        types: Mapping[str, Any] = (
            {name: column.declared for name, column in columns_of(connection, source.table).items()}
            if is_mysql(connection)
            else {column["name"]: column["type"] for column in sa.inspect(connection).get_columns(source.table)}
        )
        observed: dict[str, str | int] = dict([observed_rows(connection, source, accounts.table)])
        problems = [
            problem
            for name in _names(accounts, columns)
            for problem in _problems_of(name, types, accounts, is_category=name in categories)
        ]
        problems += [problem for name in groups for problem in _problems_of_group(name, types, accounts)]
        if is_mysql(connection):
            problems += problems_of(connection, source, accounts.table, _roles(accounts, columns, groups, categories), kind)
        else:
            problems += problems_in_sqlite(source.where, types, accounts.table)
        if not is_mysql(connection) and (source.key or source.id_cast):
            what = "a table of SQLite is one range, by the account id as it stands"
            problems.append(Problem(where=f"sources.{accounts.table}", what=what, remedy="remove key and id_cast"))
        if source.reread is not None:
            what = "accounts are read anew in each run"
            problems.append(Problem(where=f"sources.{accounts.table}", what=what, remedy="remove reread, which is of events"))
        problems += gentle_problems(connection, source, accounts.table)
    return observed | {f"column {accounts.table}.{name}": str(kind) for name, kind in sorted(types.items())}, tuple(problems)


def refuse_missing_table(connection: sa.Connection, source: SqlSource, table: str) -> None:
    """Raise Refused ``table_missing`` unless the source's table or view is there; ``table`` is its name in the feature set."""
    inspector = sa.inspect(connection)
    there = [*inspector.get_table_names(), *inspector.get_view_names()]
    if source.table not in there:
        near = _nearest(source.table, there)
        raise Refused(
            "table_missing",
            f"the database {source.url!r} has no table {source.table!r}",
            where=f"sources.{table}",
            remedy=f"did you mean {near!r}?" if near else "check the table's name and the URL",
        )


def _problems_of(name: str, types: Mapping[str, Any], accounts: AccountsTable, *, is_category: bool) -> Iterator[Problem]:
    """What the table's declared types already say; SQLite's values are looked at when they are read."""
    where = f"{accounts.table}.{name}"
    if name not in types:
        near = _nearest(name, types)
        remedy = f"did you mean {near!r}?" if near else "check the column's name"
        yield Problem(where=where, what="column_missing: is not among the columns", remedy=remedy)
    elif name == accounts.key:
        if isinstance(types[name], (sa.Numeric, sa.Float, sa.Boolean)):
            what = f"id_physical_type: account ids are {types[name]}: they may already have lost digits"
            yield Problem(where=where, what=what, remedy="store them as integers or text")
    elif is_category:
        if isinstance(types[name], _NO_TEXT):
            what = f"column_type: is {types[name]}, which is no text"
            yield Problem(where=where, what=what, remedy=f"read it as a number: {{column: {name}}}")
    elif name not in {time.column for time in _times(accounts)} and isinstance(types[name], (sa.String, sa.LargeBinary)):
        yield Problem(
            where=where,
            what=f"column_type: is {types[name]}, which is no number",
            remedy=f"make it a number, also in a view, or read its names: {{category: {name}}}",
        )


def _problems_of_group(name: str, types: Mapping[str, Any], accounts: AccountsTable) -> Iterator[Problem]:
    if name not in types:
        yield from _problems_of(name, types, accounts, is_category=True)
    elif isinstance(types[name], (sa.Numeric, sa.Float, sa.Date, sa.DateTime)):
        what = f"column_type: is {types[name]}, which names no group"
        yield Problem(where=f"{accounts.table}.{name}", what=what, remedy="use text, an integer or a bool")


def _nearest(name: str, among: Iterable[str]) -> str | None:
    """The name nearest to ``name``; case does not count."""
    folded = {found.casefold(): found for found in among}
    near = get_close_matches(name.casefold(), list(folded), n=1)
    return folded[near[0]] if near else None


def _names(accounts: AccountsTable, columns: Iterable[str]) -> list[str]:
    """The columns to read, the key first."""
    return list(dict.fromkeys([accounts.key, *(time.column for time in _times(accounts)), *columns]))


def largest_key(source: SqlSource, accounts: AccountsTable, kind: IdKind) -> int | str | None:
    """The largest key as the table's own collation has it: where reading will stop. None for an empty table."""
    key: sa.ColumnClause[Any] = sa.column(accounts.key)
    with connected(source) as connection:
        row = connection.execute(
            sa.select(key).select_from(_table(source, [])).where(key.is_not(None)).order_by(key.desc()).limit(1)
        ).first()
        typed = connection.dialect.name == "sqlite"
    if row is None:
        return None
    if typed and isinstance(row[0], bytes):  # SQLite compares bytes with text by type alone: reading up to a text would lose them
        raise Refused(
            "column_type", "holds a key of bytes (BLOB)", where=accounts.key, remedy="read a view that casts the key to TEXT"
        )
    high: int | str = _exact_key(row[0], kind, accounts.key)
    return high


def key_ranges(source: SqlSource, accounts: AccountsTable, kind: IdKind) -> list[tuple[KeyBound | None, KeyBound | None]]:
    """Ranges (low, high] of keys to read: one of a SQLite table, as many as its rows ask for of a MySQL one; never none."""
    with opened(source) as engine:
        if not is_mysql(engine):
            return [(None, largest_key(source, accounts, kind))]
        if can_read_fast(url := database_url(source.url)):
            warm_up(source.url, url)  # where attempts run in this process, too
        with translated(where=f"url: {source.url}"), engine.connect() as connection:
            key = paging_key(connection, source, accounts.key)
        if key.unique:
            bounds = balanced_ranges(engine, source, key, at_a_time=Brake(source).most_reads or 1)
        else:
            bounds = ranges_from_below(engine, source, key, None)
    return list(pairwise(bounds)) or [(None, None)]


def observed_rows(connection: sa.Connection, source: SqlSource, table: str) -> tuple[str, int]:
    """What is observed of a table's rows, and how many: of MySQL what the server estimates, exact where they are few.

    They are all rows: to count those that a filter keeps would be to read the table.
    """
    if not is_mysql(connection):
        return rows_of(table), int(connection.execute(sa.select(sa.func.count()).select_from(_table(source, []))).scalar_one())
    asked = sa.text(
        "SELECT MAX(table_rows) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :name"
    )
    estimate = int(connection.execute(asked, {"name": source.table}).scalar_one() or 0)
    if estimate < COUNTED_ROWS:  # also of a view, and of a table whose statistics were never made
        some = sa.select(sa.literal(1)).select_from(_table(source, [])).limit(COUNTED_ROWS).subquery()
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
    low, high = bounds
    with opened(source) as engine:
        if is_mysql(engine):
            for page, place in mysql_pages(engine, source, bounds, _roles(accounts, columns, groups, categories)):
                yield with_moments(page, _times(accounts)), place
            return
    assert low is None, "a SQLite table is one range"
    assert not isinstance(high, tuple)
    roles = dict(_roles(accounts, columns, groups, categories))
    names = list(roles)
    n_read = 0
    table = _table(source, names)
    key = table.c[accounts.key]
    seen: dict[str, set[str]] = {name: set() for name in names}
    with connected(source) as connection:
        wanted = _kept(sa.select(*(table.c[name] for name in names)), connection, source)
        nulls = _kept(sa.select(sa.func.count()).select_from(table).where(key.is_(None)), connection, source)
        n_null = connection.execute(nulls).scalar_one()
        connection.rollback()
        for first in range(0, n_null, PAGE_ROWS):  # of such a row nothing is used but that it is there
            nothing = [(None,) * len(names)] * min(PAGE_ROWS, n_null - first)
            yield _as_table(nothing, roles, accounts, kind, seen), Place(source.table, n_read)
            n_read += len(nothing)
        last: int | str | None = None
        while high is not None:
            page = wanted.where(key <= high).order_by(key).limit(PAGE_ROWS)
            if last is not None:
                page = page.where(key > last)
            rows = connection.execute(page).all()
            connection.rollback()  # each page is a transaction of its own
            if not rows:
                return
            last = _exact_key(rows[-1][0], kind, accounts.key)
            same = connection.execute(wanted.where(key == last)).all()
            connection.rollback()
            rows = _with_whole_group(rows, same)
            yield _as_table(rows, roles, accounts, kind, seen), Place(source.table, n_read)
            n_read += len(rows)


def mysql_pages(
    engine: sa.Engine,
    source: SqlSource,
    bounds: tuple[KeyBound | None, KeyBound | None],
    roles: Sequence[tuple[str, Role]],
) -> Iterator[tuple[pa.Table, Place]]:
    """Raw rows of a range as `read_pages` gives them, but that times which are text stay so; at least a page without rows."""
    low, high = bounds
    n_read = 0
    url = database_url(source.url)
    with fast_reader(source.url, url) if can_read_fast(url) else nullcontext() as fast:
        reader = PageReader(engine, source, roles, fast)
        if low is None:
            for first in range(0, n_null := reader.count_null_keys(), PAGE_ROWS):
                page = reader.rows_without_key(min(PAGE_ROWS, n_null - first))
                yield page, Place(source.table, n_read)
                n_read += len(page)
        for page in reader.pages(low, high) if high is not None else ():
            yield page, Place(source.table, n_read)
            n_read += len(page)
        if not n_read:
            yield reader.no_rows(), Place(source.table)


def _roles(
    accounts: AccountsTable, columns: Iterable[str], groups: Iterable[str], categories: Collection[str]
) -> list[tuple[str, Role]]:
    """What each column to read is for, the key first. A group that a feature reads too is what it is to the feature."""
    times: dict[str, Role] = {time.column: "time" for time in _times(accounts)}
    roles: dict[str, Role] = {accounts.key: "key", **times}
    for name in columns:
        roles.setdefault(name, "category" if name in categories else "number")
    for name in groups:
        roles.setdefault(name, "segment")
    return list(roles.items())


def with_moments(page: pa.Table, times: Iterable[TimeColumn]) -> pa.Table:
    """Times that are text in the table, as moments."""
    for time in times:
        if pa.types.is_string(page.schema.field(time.column).type):
            place = page.schema.get_field_index(time.column)
            page = page.set_column(place, time.column, _moments(page[time.column].to_pylist(), time, time.column))
    return page


def _with_whole_group(rows: Sequence[Any], same: Sequence[Any]) -> list[Any]:
    """A page (key first) with all keys that the collation holds equal to its last: they may straddle the page's end."""
    keys = {row[0] for row in same}
    return [*(row for row in rows if row[0] not in keys), *same]


def _table(source: SqlSource, names: Sequence[str]) -> sa.TableClause:
    return sa.table(
        sa.sql.quoted_name(source.table, quote=True), *(sa.column(sa.sql.quoted_name(name, quote=True)) for name in names)
    )


def _kept(rows: sa.Select[Any], connection: sa.Connection, source: SqlSource) -> sa.Select[Any]:
    """Of rows of a SQLite table, those that the source's filter keeps."""
    if not source.where:
        return rows
    # With the table's name: SQLite takes a quoted name alone, of a column that is gone, for text.
    table = quoted(connection, source.table)
    condition, parameters = in_sqlite(source.where, lambda name: f"{table}.{quoted(connection, name)}")
    return rows.where(sa.text(condition).bindparams(**parameters))


def _times(accounts: AccountsTable) -> list[TimeColumn]:
    return list(accounts.times.values())


def _exact_key(value: Any, kind: IdKind, column: str) -> int | str:
    """A key as it came, if it is an integer or text as declared; SQLite lets any column hold anything."""
    if isinstance(value, (float, bool)):
        raise Refused(
            "id_physical_type",
            "holds a key that is a float: it may already have lost digits",
            where=column,
            remedy="store keys as integers or text",
        )
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise PartitionError("invalid_utf8", "holds bytes that are not UTF-8", where=column) from None
    if not isinstance(value, int if kind == "integer" else str):
        raise Refused(
            "column_type",
            f"holds a key that is {type(value).__name__}, the feature set says {kind}",
            where=column,
            remedy="set account_id in the feature set to what the keys are",
        )
    return value


def _as_table(
    rows: Sequence[Any],
    roles: Mapping[str, Role],
    accounts: AccountsTable,
    kind: IdKind,
    seen: Mapping[str, set[str]],
) -> pa.Table:
    """A page as Arrow, each column as its role wants it: keys exact, times as moments or integers.

    ``seen``: kinds of earlier pages.
    """
    columns = dict(zip(roles, zip(*rows, strict=True), strict=True))
    times = {time.column: time for time in _times(accounts)}
    made = {}
    for name, values in columns.items():
        role = roles[name]
        if role == "key":
            keys = [None if value is None else _exact_key(value, kind, name) for value in values]
            made[name] = _key_array(keys, kind)
        elif role == "time":
            made[name] = _moments(values, times[name], name)
        elif role == "segment":
            made[name] = _group_names(values, name)
        elif role == "category":
            made[name] = _category(values, name)
        else:
            made[name] = _numbers(values, name, seen[name])
    return pa.table(made)


def _key_array(keys: Sequence[int | str | None], kind: IdKind) -> pa.Array:
    if kind == "string":
        return pa.array(keys, pa.string())
    negative = any(key is not None and int(key) < 0 for key in keys)
    return pa.array(keys, pa.int64() if negative else pa.uint64())


def _moments(values: Sequence[Any], time: TimeColumn, column: str) -> pa.Array:
    """ISO text and datetimes as moments (naive ones by the declared zone, later); integers stay for their unit."""
    if (
        all(value is None or (isinstance(value, int) and not isinstance(value, bool)) for value in values)
        and time.unit is not None
    ):
        return pa.array(values, pa.int64())
    try:
        moments = [_moment(value) for value in values]
        naive = {moment.tzinfo is None for moment in moments if moment is not None}
        if naive == {False}:
            moments = [moment and moment.astimezone(UTC) for moment in moments]
        if len(naive) < len({True, False}):  # a column with and without zones is refused below
            return pa.array(moments, pa.timestamp("us", None if naive == {True} or time.zone else "UTC"))
    except (ValueError, TypeError, AttributeError, OverflowError, pa.ArrowException):
        pass  # said below: the library's message may quote the value
    raise PartitionError(
        "column_type",
        "holds a value that is no time as declared",
        where=column,
        remedy="store ISO text with a zone, or integers with a declared unit",
    )


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 (the declared zone is applied later)
    return value


def _group_names(values: Sequence[Any], column: str) -> pa.Array:
    """A segment's column as text. SQLite may mix text with integers: a group is named by what is written, 1 or '1'."""
    if any(isinstance(value, (float, bytes)) for value in values):
        raise PartitionError(
            "column_type", "holds a value that names no group", where=column, remedy="use text, an integer or a bool"
        )
    names = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    return pa.array([None if value is None else name for value, name in zip(values, names, strict=True)], pa.string())


def _category(values: Sequence[Any], column: str) -> pa.Array:
    """A category's column. SQLite lets a column of text hold anything, and a number is nobody's name."""
    if not all(value is None or isinstance(value, str) for value in values):
        raise PartitionError("column_type", "holds a value that is no text", where=column, remedy="store nothing but text in it")
    return pa.array(values, pa.string())


def _numbers(values: Sequence[Any], column: str, seen: set[str]) -> pa.Array:
    """A feature's column. SQLite may mix integers with reals: they are float64 together, where no integer is too large for it."""
    kinds = {type(value) for value in values if value is not None}
    seen |= {kind.__name__ for kind in kinds}
    if any(isinstance(value, int) and abs(value) > _EXACT_IN_FLOAT64 for value in values):
        seen.add(_LARGE)
    if seen <= {"int", _LARGE} or seen <= {"int", "float"} or seen <= {"bool"}:
        try:
            return pa.array([None if value is None else float(value) for value in values] if float in kinds else values)
        except OverflowError:
            pass  # an integer beyond 64 bits with a sign
    raise PartitionError(
        "column_type",
        f"holds {' and '.join(sorted(seen))}, which no one type of number holds exactly",
        where=column,
        remedy="store numbers of one type in the column",
    ) from None
