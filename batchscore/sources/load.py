"""Looks at a live source: how busy it is, how far its replicas are behind, whether its pause table holds a row.

Imported where a source is looked at, and not with `brake`: workers that read Parquet do without SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from batchscore.database import code_of, is_mysql, quoted, read, reading_engine, translated
from batchscore.errors import Problem
from batchscore.settings import database_url
from batchscore.sources.gentle import Load, replica_lag, worse
from batchscore.spec import SqlSource

_DENIED: Final = {1142, 1227}


def load_of(source: SqlSource) -> Load:
    """What is seen now, by connections that end with the look.

    Raises:
        TryAgain: a database was away for a minute.
    """
    with reading_engine(database_url(source.url)) as engine:
        load = read(engine, partial(_load_of, source), where=f"url: {source.url}")
    lag = load.lag_s
    for name in source.gentle.replicas:
        with reading_engine(database_url(name)) as engine:
            lag = worse(lag, read(engine, _lag_of, where=f"url: {name}"))
    return Load(flag=load.flag, threads_running=load.threads_running, lag_s=lag)


def gentle_problems(connection: sa.Connection, source: SqlSource, table: str) -> Iterator[Problem]:
    """What a brake could not look at: a pause table that is not there, replicas that the account may not ask after."""
    where = f"sources.{table}.sql.gentle"
    pause = source.gentle.pause_table
    if pause is not None and not sa.inspect(connection).has_table(pause):
        yield Problem(
            where=f"{where}.pause_table",
            what=f"table_missing: the database {source.url!r} has no table {pause!r}",
            remedy=f"CREATE TABLE {quoted(connection, pause)} (why VARCHAR(255) NOT NULL)",
        )
    if source.gentle.replica_lag_s is not None:
        yield from _lag_problem(connection, source.url, where)
    for name in source.gentle.replicas:
        with reading_engine(database_url(name)) as engine, translated(where=f"url: {name}"), engine.connect() as replica:
            yield from _lag_problem(replica, name, where)


def _lag_problem(connection: sa.Connection, name: str, where: str) -> Iterator[Problem]:
    if is_mysql(connection) and not _may_see_replicas(connection):
        right = "REPLICA MONITOR" if _is_mariadb(connection) else "REPLICATION CLIENT"
        user, _, host = str(connection.exec_driver_sql("SELECT CURRENT_USER()").scalar_one()).rpartition("@")
        yield Problem(
            where=f"{where}.replica_lag_s",
            what=f"database_setup: the account of {name!r} may not see how far a replica is behind",
            remedy=f"GRANT {right} ON *.* TO '{user}'@'{host}'",
        )


def _may_see_replicas(connection: sa.Connection) -> bool:
    with translated(where="replica status"):
        try:
            _lag_of(connection)
        except sa.exc.DBAPIError as error:
            if code_of(error.orig) not in _DENIED:
                raise
            return False
    return True


def _load_of(source: SqlSource, connection: sa.Connection) -> Load:
    flag = ""
    if (table := source.gentle.pause_table) is not None:
        some = sa.select(sa.literal(1)).select_from(sa.table(sa.sql.quoted_name(table, quote=True))).limit(1)
        flag = f"the table {table} holds a row" if connection.execute(some).first() is not None else ""
    if not is_mysql(connection):
        return Load(flag=flag)
    running = connection.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Threads_running'").one()
    lag = _lag_of(connection) if source.gentle.replica_lag_s is not None else None
    return Load(flag=flag, threads_running=int(running[1]), lag_s=lag)


def _lag_of(connection: sa.Connection) -> float | None:
    """Of the server that is asked, where it is a replica."""
    if not is_mysql(connection):
        return None
    channels = "SHOW ALL REPLICAS STATUS" if _is_mariadb(connection) else "SHOW REPLICA STATUS"
    rows: list[dict[str, Any]] = [dict(row) for row in connection.exec_driver_sql(channels).mappings()]
    return replica_lag(rows)


def _is_mariadb(connection: sa.Connection) -> bool:
    return is_mysql(connection) and bool(getattr(connection.dialect, "is_mariadb", False))
