"""Databases by URL: engines with every timeout set, transactions, the database's clock, and one map from drivers' errors to ours.

What differs between databases stands here, so that `store` and `sources.sql` read the same for all. No URL, password or
bound parameter ever stands in a message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from batchscore.errors import BatchscoreError, DatabaseFailed, Refused

BUSY_S: Final = 30  # how long a SQLite statement waits for another's lock


def open_engine(url: str, *, read_only: bool = False) -> sa.Engine:
    """An engine for ``url``. SQLite: write-ahead log, every commit on disk before it is answered, writers take the lock first.

    Raises:
        Refused: ``database_error``: the URL cannot be understood (it is not repeated).
    """
    try:
        parsed = _never_created(sa.make_url(url)) if read_only else sa.make_url(url)
        # A writer keeps its connection: closing the last one makes SQLite move its whole log into the database file.
        pool = NullPool if read_only else QueuePool
        engine = sa.create_engine(parsed, hide_parameters=True, poolclass=pool, connect_args=_connect_args(parsed))
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError):
        raise Refused(
            "database_error",
            "the database URL cannot be understood",
            where="the environment",
            remedy="write it as SQLAlchemy does, such as sqlite:////path/to.db",
        ) from None
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine, read_only=read_only)
    return engine


def _never_created(url: sa.URL) -> sa.URL:
    """Reading a SQLite file that is not there must not make it."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return url
    return url.set(database=f"file:{quote(url.database)}", query={"mode": "ro", "uri": "true"})


def _connect_args(url: sa.URL) -> dict[str, Any]:
    return {"timeout": BUSY_S, "check_same_thread": False} if url.get_backend_name() == "sqlite" else {}


def _set_up_sqlite(engine: sa.Engine, *, read_only: bool) -> None:
    """Pragmas on connect; and since pysqlite would begin late and never IMMEDIATE, transactions are begun by us."""

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        pragmas = ["PRAGMA query_only = ON"] if read_only else ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"]
        for pragma in [*pragmas, "PRAGMA foreign_keys = ON"]:
            connection.execute(pragma)

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def now(engine: sa.Engine) -> sa.ColumnElement[Any]:
    """The database's own clock, seconds since 1970 in UTC: leases are compared with nothing else."""
    if engine.dialect.name == "sqlite":
        return sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Float)
    return sa.literal_column("UNIX_TIMESTAMP(NOW(6))", sa.Float)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Errors of SQLAlchemy and its drivers leave the block as ours; ours pass through."""
    try:
        yield
    except BatchscoreError:
        raise
    except sa.exc.OperationalError as error:
        raise _operational(error, where) from None
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OverflowError) as error:
        raise DatabaseFailed(
            "database_error",
            f"the database refused a statement ({type(error).__name__})",
            where=where,
            remedy="batchscore status; then resume the run",
        ) from None


def _operational(error: sa.exc.OperationalError, where: str) -> BatchscoreError:
    said = str(error.orig).lower()
    if "locked" in said or "busy" in said:
        return DatabaseFailed(
            "store_busy",
            f"the database stayed locked for {BUSY_S} s",
            where=where,
            remedy="see who holds it, then resume the run",
        )
    if "unable to open" in said:
        return Refused(
            "database_error", "the database file cannot be opened", where=where, remedy="check the path and its rights"
        )
    if "readonly" in said or "read-only" in said:
        return Refused("database_error", "the database is read-only", where=where, remedy="give the driver the right to write it")
    if "full" in said or "disk i/o" in said:
        return DatabaseFailed(
            "write_failed", "the disk is full or failing", where=where, remedy="free space, then resume the run"
        )
    return DatabaseFailed(
        "database_error", "the database refused a statement", where=where, remedy="batchscore status; then resume the run"
    )
