"""Rows of somebody else's table, as they are: names are quoted, nothing is cast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from batchscore.database.failures import translated
from batchscore.errors import Refused

_ROWS_AT_A_TIME: Final = 10_000


def columns_of_table(engine: sa.Engine, table: str, *, where: str) -> tuple[str, ...]:
    """The names of a table's or view's columns, in order.

    Raises:
        Refused: ``table_missing``, or the database cannot be read.
    """
    with translated(where), engine.connect() as connection:
        try:
            return tuple(str(column["name"]) for column in sa.inspect(connection).get_columns(table))
        except sa.exc.NoSuchTableError:
            raise Refused(
                "table_missing", "the database has no such table or view", where=where, remedy="check --table, and the rights"
            ) from None


def rows_of_table(engine: sa.Engine, table: str, columns: Sequence[str], *, where: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a table, those columns of it, in no order.

    Raises:
        Refused, TryAgain, DatabaseFailed: the database cannot be read.
    """
    wanted: list[sa.ColumnElement[Any]] = [sa.column(name) for name in columns]
    query: sa.Select[Any] = sa.select(*wanted).select_from(sa.table(table))
    with translated(where), engine.connect() as connection:
        for row in connection.execution_options(yield_per=_ROWS_AT_A_TIME).execute(query).mappings():
            yield dict(row)
