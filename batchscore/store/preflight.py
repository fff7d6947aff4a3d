"""Preflight of a store on MySQL: are server, tables and account what a driver, or a reviewer, needs? Changes nothing.

Each finding comes with the statement that mends it. Rights are tried, not read: a write of no rows is answered by the server
itself, roles, wildcards and proxies included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from batchscore.database import code_of, translated
from batchscore.errors import Problem, Refused
from batchscore.store.grants import WRITERS, Writer
from batchscore.store.tables import WITH_IDS, metadata

LEAST_PACKET_BYTES: Final = 1 << 20
_OURS: Final = (*metadata.tables, *WITH_IDS)
_EXACT: Final = {"score": "double", "margin": "double"}


def require_ready(connection: sa.Connection) -> None:
    """Raise Refused ``database_setup`` with everything that `findings` has."""
    problems = tuple(findings(connection))
    if problems and role_of(connection) == "reviewer":  # its rights are as they should be; a list would ask for the driver's
        what = "is a reviewer's: it decides on flags, and changes no run"
        problems = (Problem(where="account", what=what, remedy="name the committer's account in the URL (batchscore db grants)"),)
    if problems:
        raise Refused(
            "database_setup",
            f"{len(problems)} thing(s) of the review database must be mended first",
            where="store",
            problems=problems,
        )


def findings(connection: sa.Connection, role: Writer = "committer") -> Iterator[Problem]:
    """What is wrong with the server, the tables and the account of a store that has its tables; ``role``: the account's."""
    yield from _of_server(connection)
    yield from _of_tables(connection)
    if not _is_read_only(connection):
        yield from _of_rights(connection, role)
    connection.rollback()


def role_of(connection: sa.Connection) -> Writer:
    """The reviewer's where the account may write what people say of flags, and no run; any other is taken for a driver's."""
    if _is_read_only(connection):
        return "committer"
    writes_peoples = _is_allowed(connection, _tried("claims", "INSERT"))
    writes_runs = _is_allowed(connection, _tried("runs", "INSERT"))
    connection.rollback()
    return "reviewer" if writes_peoples and not writes_runs else "committer"


def _is_read_only(connection: sa.Connection) -> bool:
    """Whether every write is refused, whoever asks."""
    return is_on(connection, "@@read_only")


def is_on(connection: sa.Connection, switch: str) -> bool:
    """Whether a switch of the server is on, which is a number, or a word: ``read_only`` since MariaDB 12."""
    said = sa.cast(sa.literal_column(switch), sa.CHAR)
    return bool(connection.execute(sa.select(said.not_in(["0", "OFF"]))).scalar_one())


def _of_server(connection: sa.Connection) -> Iterator[Problem]:
    if _is_read_only(connection):
        remedy = "name the primary in the URL, or SET GLOBAL read_only = OFF"
        yield Problem(where="server", what="is read-only", remedy=remedy)
    packet, log_bin, binlog_format = connection.exec_driver_sql("SELECT @@max_allowed_packet, @@log_bin, @@binlog_format").one()
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


def _of_rights(connection: sa.Connection, role: Writer) -> Iterator[Problem]:
    """Each table is read, and written as the role does, without a row."""
    account, database = connection.exec_driver_sql("SELECT CURRENT_USER(), DATABASE()").one()
    user, _, host = str(account).rpartition("@")
    for name in _OURS:
        for right in ("SELECT", *WRITERS[role].get(name, ())):
            if not _is_allowed(connection, _tried(name, right)):
                remedy = f"GRANT {right} ON `{database}`.`{name}` TO '{user}'@'{host}'"
                yield Problem(where=f"table {name}", what=f"the account may not {right}", remedy=remedy)


def _tried(table: str, right: str) -> str:
    """A statement of no rows that needs the right, as it is named in a GRANT."""
    verb, _, columns = right.partition(" ")
    if verb == "SELECT":
        return f"SELECT 1 FROM `{table}` LIMIT 0"  # noqa: S608 (names of our own tables)
    if verb == "INSERT":
        return f"INSERT INTO `{table}` SELECT * FROM `{table}` WHERE FALSE"  # noqa: S608 (as above)
    first = next(column.name for column in metadata.tables[table].c) if table in metadata.tables else "queue"
    changed = columns.strip("()").split(", ") if columns else [first]
    return f"UPDATE `{table}` SET {', '.join(f'`{column}` = `{column}`' for column in changed)} WHERE FALSE"  # noqa: S608 (as above)


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
