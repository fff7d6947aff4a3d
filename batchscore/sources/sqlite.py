"""A live SQLite table, read a page at a time along its key, each page a short read of its own.

SQLite lets any column hold anything: declared types are looked at when planning, and every value when it is read. Pages follow
the key's own collation; whoever reads them puts the keys' bytes in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from batchscore.database import quoted
from batchscore.errors import PartitionError, Problem, Refused
from batchscore.features.tables import AccountsTable
from batchscore.keys import IdKind
from batchscore.sources.canonical import Place
from batchscore.sources.mysql_columns import Role
from batchscore.sources.text_times import moments
from batchscore.sources.where_sql import in_sqlite, problems_in_sqlite
from batchscore.spec import SqlSource

PAGE_ROWS = 10_000  # tests make it smaller
_EXACT_IN_FLOAT64: Final = 2**53
_LARGE: Final = "integers beyond 2^53"
# By role: declared types that cannot be read in it, what is wrong with them, and the remedy.
_UNFIT: Final[Mapping[Role, tuple[tuple[type, ...], str, str]]] = {
    "key": (
        (sa.Numeric, sa.Float, sa.Boolean),
        "id_physical_type: account ids are {kind}: they may already have lost digits",
        "store them as integers or text",
    ),
    "number": (
        (sa.String, sa.LargeBinary),
        "column_type: is {kind}, which is no number",
        "make it a number, also in a view, or read its names: {{category: {name}}}",
    ),
    "category": (
        (sa.Integer, sa.Numeric, sa.Float, sa.Boolean, sa.Date, sa.DateTime, sa.LargeBinary),
        "column_type: is {kind}, which is no text",
        "read it as a number: {{column: {name}}}",
    ),
    "segment": (
        (sa.Numeric, sa.Float, sa.Date, sa.DateTime),
        "column_type: is {kind}, which names no group",
        "use text, an integer or a bool",
    ),
}


def types_of(connection: sa.Connection, table: str) -> dict[str, sa.types.TypeEngine[Any]]:
    """The declared type of each column of a table or view, by name."""
    return {column["name"]: column["type"] for column in sa.inspect(connection).get_columns(table)}


def problems_of(
    source: SqlSource, table: str, types: Mapping[str, object], uses: Iterable[tuple[str, Role]]
) -> Iterator[Problem]:
    """What the declared types of the columns that are there already say, and what is wrong with the source's filter and key."""
    for name, role in uses:
        kinds, what, remedy = _UNFIT.get(role, ((), "", ""))
        if isinstance(kind := types.get(name), kinds):
            yield Problem(where=f"{table}.{name}", what=what.format(kind=kind), remedy=remedy.format(name=name))
    yield from problems_in_sqlite(source.where, types, table)
    if source.key or source.id_cast:
        what = "a table of SQLite is one range, by the account id as it stands"
        yield Problem(where=f"sources.{table}", what=what, remedy="remove key and id_cast")


def largest_key(connection: sa.Connection, source: SqlSource, accounts: AccountsTable, kind: IdKind) -> int | str | None:
    """The largest key as the table's own collation has it: where reading will stop. None for an empty table.

    Raises:
        Refused: ``id_physical_type`` or ``column_type``: it is no integer or text as declared.
        PartitionError: ``invalid_utf8``.
    """
    table = _table(source, [accounts.key])
    key = table.c[accounts.key]
    row = connection.execute(sa.select(key).where(key.is_not(None)).order_by(key.desc()).limit(1)).first()
    if row is None:
        return None
    if isinstance(row[0], bytes):  # compared with text by type alone: reading up to a text would lose them
        raise Refused(
            "column_type", "holds a key of bytes (BLOB)", where=accounts.key, remedy="read a view that casts the key to TEXT"
        )
    return _exact_key(row[0], kind, accounts.key)


def pages_of(
    connection: sa.Connection,
    source: SqlSource,
    accounts: AccountsTable,
    kind: IdKind,
    roles: Mapping[str, Role],
    high: int | str | None,
) -> Iterator[tuple[pa.Table, Place]]:
    """Rows with keys up to ``high``, by key, a page at a time; first those whose key is null. ``roles``: of columns, key first.

    Raises:
        Refused: ``id_physical_type`` or ``column_type``: a key that is no integer or text.
        PartitionError: ``column_type``: values of one column that no single type holds.
    """
    n_read = 0
    table = _table(source, roles)
    key = table.c[accounts.key]
    seen: dict[str, set[str]] = {name: set() for name in roles}
    wanted = _kept(sa.select(*table.c), connection, source)
    nulls = _kept(sa.select(sa.func.count()).select_from(table).where(key.is_(None)), connection, source)
    n_null = connection.execute(nulls).scalar_one()
    connection.rollback()
    for first in range(0, n_null, PAGE_ROWS):  # of such a row nothing is used but that it is there
        nothing = [(None,) * len(roles)] * min(PAGE_ROWS, n_null - first)
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


def _table(source: SqlSource, names: Iterable[str]) -> sa.TableClause:
    return sa.table(
        sa.sql.quoted_name(source.table, quote=True), *(sa.column(sa.sql.quoted_name(name, quote=True)) for name in names)
    )


def _with_whole_group(rows: Sequence[Any], same: Sequence[Any]) -> list[Any]:
    """A page (key first) with all keys that the collation holds equal to its last: they may straddle the page's end."""
    keys = {row[0] for row in same}
    return [*(row for row in rows if row[0] not in keys), *same]


def _kept(rows: sa.Select[Any], connection: sa.Connection, source: SqlSource) -> sa.Select[Any]:
    """Those of the rows that the source's filter keeps."""
    if not source.where:
        return rows
    # With the table's name: SQLite takes a quoted name alone, of a column that is gone, for text.
    condition, parameters = in_sqlite(source.where, partial(quoted, connection, source.table))
    return rows.where(sa.text(condition).bindparams(**parameters))


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
    times = {time.column: time for time in accounts.times.values()}
    made = {}
    for name, values in columns.items():
        role = roles[name]
        if role == "key":
            keys = [None if value is None else _exact_key(value, kind, name) for value in values]
            made[name] = _key_array(keys, kind)
        elif role == "time":
            made[name] = moments(values, times[name])
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
