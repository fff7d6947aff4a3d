"""Engines: SQLite with its write-ahead log, MySQL with every timeout set and a session that says what it means."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from batchscore.database.failures import BUSY_S, DROP_POOL, code_of
from batchscore.errors import Refused

CONNECT_S: Final = 10
READ_S: Final = 30  # of one answer, and of one wait for a lock; a URL's read_timeout and write_timeout may say otherwise
RECYCLE_S: Final = 300  # a connection this old is replaced before it is used: proxies and firewalls forget the idle
IDLE_S: Final = 3.0  # a connection unused for so long is tried before it is used; one that breaks sooner is met by the statement
POOL: Final = 3  # connections of one process: the driver's writes, its reads, and its lease
_MYSQL: Final = {"mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"}
# What is too long, too large or no date is an error, never cut to fit; quotes and backslashes mean what PyMySQL takes them for.
_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"

_idle: Final[dict[str, list[sa.Engine]]] = {}  # by URL: engines for reading that nobody uses, without a connection
_turn: Final = Lock()


def open_engine(url: str, *, read_only: bool = False) -> sa.Engine:
    """An engine for ``url``.

    SQLite: write-ahead log, every commit on disk before it is answered, writers take the lock first. MySQL and MariaDB,
    through PyMySQL: READ COMMITTED, UTC, strict, utf8mb4, no LOAD DATA LOCAL; connections that were idle are tried before use.

    Raises:
        Refused: ``database_error``: the URL cannot be understood (it is not repeated).
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in _MYSQL:
            return _mysql(parsed, read_only=read_only)
        return _sqlite(_never_created(parsed) if read_only else parsed, read_only=read_only)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError, ValueError):
        raise Refused(
            "database_error",
            "the database URL cannot be understood",
            where="the environment",
            remedy="write it as SQLAlchemy does, such as sqlite:////path/to.db or mysql://user:password@host/database",
        ) from None


@contextmanager
def reading_engine(url: str) -> Iterator[sa.Engine]:
    """An engine that only reads, for the block alone; its connections end with it.

    This process keeps the engine for the next block: making one and its dialect's first questions take as long as an attempt's
    own. Raises as `open_engine`.
    """
    with _turn:
        waiting = _idle.get(url)
        engine = waiting.pop() if waiting else None
    engine = engine or open_engine(url, read_only=True)
    try:
        yield engine
    finally:
        engine.dispose()
        if is_mysql(engine):  # one of SQLite is made at once
            with _turn:
                _idle.setdefault(url, []).append(engine)


def is_mysql(bound: sa.Engine | sa.Connection) -> bool:
    """MySQL or MariaDB, and not SQLite."""
    return bound.dialect.name == "mysql"


def quoted(bound: sa.Engine | sa.Connection, *names: str) -> str:
    """The name of a table, or a table's and that of a column of it, as it stands in a statement that `execute_text` executes.

    SQLAlchemy's own quoting doubles percent signs, for a PyMySQL that looks for parameters.
    """
    mark = "`" if is_mysql(bound) else '"'
    return ".".join(f"{mark}{name.replace(mark, mark * 2)}{mark}" for name in names)


def execute_text(connection: sa.Connection, statement: str) -> sa.CursorResult[Any]:
    """Execute a statement to the letter: a driver that is given no parameters takes no percent sign for one's place."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _mysql(url: sa.URL, *, read_only: bool) -> sa.Engine:
    asked = url.set(drivername="mysql+pymysql").update_query_dict({"charset": "utf8mb4", "local_infile": "0"})
    defaults = {"connect_timeout": CONNECT_S, "read_timeout": READ_S, "write_timeout": READ_S}
    timeouts = {name: int(str(url.query.get(name, default))) for name, default in defaults.items()}
    engine = sa.create_engine(
        asked.difference_update_query(list(defaults)),
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=READ_S,
        pool_recycle=RECYCLE_S,
        pool_reset_on_return=None,  # every transaction of ours is ended by us: no second ROLLBACK, and none that fails unheard
        connect_args=timeouts,
    )
    session = _session(timeouts["read_timeout"], read_only=read_only)
    from batchscore.database.mysql_connection import MySqlConnection  # noqa: PLC0415 (PyMySQL: with SQLite nobody needs it)

    @sa.event.listens_for(engine, "do_connect")
    def _on_do_connect(_dialect: object, _record: object, arguments: Any, named: dict[str, Any]) -> MySqlConnection:
        return MySqlConnection(*arguments, **named)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for statement in session:
                cursor.execute(statement)

    @sa.event.listens_for(engine, "checkin")
    def _on_checkin(_connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def _on_checkout(connection: Any, record: Any, _proxy: object) -> None:
        if time.monotonic() - record.info.get("used_at", time.monotonic()) > IDLE_S:
            try:
                connection.ping(reconnect=False)
            except Exception:  # noqa: BLE001 (whatever it is, the connection is no good: the pool opens another)
                raise sa.exc.DisconnectionError from None

    @sa.event.listens_for(engine, "handle_error")
    def _on_error(context: sa.ExceptionContext) -> None:
        if code_of(context.original_exception) in DROP_POOL:
            context.is_disconnect = True  # a server that was demoted stays so: its other connections are no better

    return engine


def _session(read_s: int, *, read_only: bool) -> list[str]:
    """What a new connection is told. A peer that went silent inside a transaction loses its locks after ``wait_timeout``."""
    said = {
        "time_zone": "'+00:00'",
        "sql_mode": f"'{_SQL_MODE}'",
        "wait_timeout": max(1, read_s),
        "innodb_lock_wait_timeout": max(1, read_s // 2),
        "lock_wait_timeout": max(1, read_s // 2),  # of a table: one that waits for it lets nobody past, and a day is the default
    }
    statements = ["SET " + ", ".join(f"SESSION {name} = {value}" for name, value in said.items())]
    return [*statements, "SET SESSION TRANSACTION READ ONLY"] if read_only else statements


def _sqlite(url: sa.URL, *, read_only: bool) -> sa.Engine:
    """Pragmas on connect; and since pysqlite would begin late and never IMMEDIATE, transactions are begun by us."""
    # A writer keeps its connection: closing the last one makes SQLite move its whole log into the database file.
    pool = NullPool if read_only else QueuePool
    connect_args: dict[str, Any] = {"timeout": BUSY_S, "check_same_thread": False}
    engine = sa.create_engine(url, hide_parameters=True, poolclass=pool, connect_args=connect_args)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        pragmas = ["PRAGMA query_only = ON"] if read_only else ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"]
        for pragma in [*pragmas, "PRAGMA foreign_keys = ON"]:
            connection.execute(pragma)

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _never_created(url: sa.URL) -> sa.URL:
    """Reading a SQLite file that is not there must not make it."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith("file:"):
        return url
    return url.set(database=f"file:{quote(url.database)}", query={"mode": "ro", "uri": "true"})


def now(engine: sa.Engine) -> sa.ColumnElement[Any]:
    """The database's own clock, seconds since 1970 in UTC: leases are compared with nothing else."""
    if is_mysql(engine):
        return sa.literal_column("UNIX_TIMESTAMP(NOW(6))", sa.Float)
    return sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Float)


def clock(connection: sa.Connection, now: sa.ColumnElement[Any]) -> int:
    """Whole microseconds since 1970 by the database's own clock; ``now``: of `now`."""
    return int(connection.execute(sa.select(now)).scalar_one() * 1_000_000)
