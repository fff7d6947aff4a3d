"""Preflight of a store on MySQL: is the server, are the tables, is the account what a driver needs? Changes nothing.

Each finding comes with the statement that mends it. Rights are tried, not read: a write of no rows is answered by the server
itself, roles, wildcards and proxies included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from batchscore.database import code_of, translated
from batchscore.errors import Problem, Refused
from batchscore.store.tables import PEOPLES, WITH_IDS, metadata

LEAST_PACKET_BYTES: Final = 1 << 20
_READ_ONLY: Final = "is read-only"
_OURS: Final = (*metadata.tables, *WITH_IDS)
_ONLY_READ: Final = frozenset({"installation", *PEOPLES})  # by a driver
_ONLY_ADDED: Final = frozenset({"audit", "events"})
_EXACT: Final = {"score": "double", "margin": "double"}


def require_ready(connection: sa.Connection) -> None:
    """Raise Refused ``database_setup`` with everything that `findings` has."""
    problems = tuple(findings(connection))
    if problems:
        raise Refused(
            "database_setup",
            f"{len(problems)} thing(s) of the review database must be mended first",
            where="store",
            problems=problems,
        )


def findings(connection: sa.Connection) -> Iterator[Problem]:
    """What is wrong with the server, the tables and the account of a store that has its tables."""
    of_server = list(_of_server(connection))
    yield from of_server
    yield from _of_tables(connection)
    if not any(problem.what == _READ_ONLY for problem in of_server):  # there every write is refused, whoever asks
        yield from _of_rights(connection)
    connection.rollback()


def _of_server(connection: sa.Connection) -> Iterator[Problem]:
    said = connection.exec_driver_sql("SELECT @@read_only, @@max_allowed_packet, @@log_bin, @@binlog_format").one()
    read_only, packet, log_bin, binlog_format = said
    if int(read_only):
        yield Problem(where="server", what=_READ_ONLY, remedy="name the primary in the URL, or SET GLOBAL read_only = OFF")
    if int(packet) < LEAST_PACKET_BYTES:
        yield Problem(
            where="server",
            what=f"takes statements of {int(packet):,} bytes at most, {LEAST_PACKET_BYTES:,} are needed",
            remedy="SET GLOBAL max_allowed_packet = 67108864",
        )
    if int(log_bin) and str(binlog_format).upper() == "STATEMENT":
        yield Problem(
            where="server",
            what="logs statements, which InnoDB refuses under READ COMMITTED",
            remedy="SET GLOBAL binlog_format = 'ROW'",
        )


def _of_tables(connection: sa.Connection) -> Iterator[Problem]:
    """Other engines lose rows in a crash; other collations and FLOAT fold or round what must be exact."""
    ours: sa.BindParameter[Any] = sa.bindparam("ours", _OURS, expanding=True)
    tables = sa.text(
        "SELECT table_name AS name, engine, table_collation AS collation FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND table_name IN :ours ORDER BY table_name"
    ).bindparams(ours)
    for row in connection.execute(tables):
        if str(row.engine).lower() != "innodb":
            what = f"is {row.engine}, which does not survive a crash"
            yield Problem(where=f"table {row.name}", what=what, remedy=f"ALTER TABLE `{row.name}` ENGINE = InnoDB")
    columns = sa.text(
        "SELECT table_name AS tab, column_name AS name, data_type AS kind, collation_name AS collation "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN :ours ORDER BY 1, 2"
    ).bindparams(ours)
    folded: dict[str, str] = {}
    for row in connection.execute(columns):
        if row.collation is not None and row.collation != "utf8mb4_bin":
            folded.setdefault(row.tab, row.collation)
        if row.tab == "flags" and _EXACT.get(row.name, row.kind) != row.kind:
            what = f"is {row.kind.upper()}, which rounds"
            remedy = f"ALTER TABLE flags MODIFY `{row.name}` DOUBLE NOT NULL"
            yield Problem(where=f"flags.{row.name}", what=what, remedy=remedy)
    for table, collation in folded.items():
        remedy = f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        yield Problem(where=f"table {table}", what=f"compares text as {collation}, not by its bytes", remedy=remedy)


def _of_rights(connection: sa.Connection) -> Iterator[Problem]:
    """Each table is read, inserted into and updated, without a row."""
    account, database = connection.exec_driver_sql("SELECT CURRENT_USER(), DATABASE()").one()
    user, _, host = str(account).rpartition("@")
    for name in _OURS:
        tried = {"SELECT": f"SELECT 1 FROM `{name}` LIMIT 0"}  # noqa: S608 (names of our own tables)
        if name not in _ONLY_READ:
            tried["INSERT"] = f"INSERT INTO `{name}` SELECT * FROM `{name}` WHERE FALSE"  # noqa: S608 (as above)
        if name not in _ONLY_READ | _ONLY_ADDED:
            column = _column(name)
            tried["UPDATE"] = f"UPDATE `{name}` SET `{column}` = `{column}` WHERE FALSE"  # noqa: S608 (as above)
        for right, statement in tried.items():
            if not _is_allowed(connection, statement):
                remedy = f"GRANT {right} ON `{database}`.`{name}` TO '{user}'@'{host}'"
                yield Problem(where=f"table {name}", what=f"the account may not {right}", remedy=remedy)


def _column(table: str) -> str:
    return next(column.name for column in metadata.tables[table].c) if table in metadata.tables else "queue"


def _is_allowed(connection: sa.Connection, statement: str) -> bool:
    """Whether the account may; what else is wrong is for others to say.

    Raises:
        TryAgain, DatabaseFailed: the database did not answer that question.
    """
    with translated(where="store"):
        try:
            connection.exec_driver_sql(statement)
        except sa.exc.DBAPIError as error:
            if code_of(error.orig) not in {1142, 1143}:
                raise
            return False
    return True
