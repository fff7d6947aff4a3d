"""One map from drivers' errors to ours. Their texts are left out: they may quote a row, a name or an address."""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from batchscore.errors import BatchscoreError, DatabaseFailed, Refused, StatementWrong, TryAgain

BUSY_S: Final = 30  # how long a SQLite statement waits for another's lock

# MySQL's numbers: https://mariadb.com/kb/en/mariadb-error-codes/, https://dev.mysql.com/doc/mysql-errors/8.4/en/
CONTENDED: Final = {1205, 1213}  # lock wait timeout, deadlock: nothing of the transaction stands
DROP_POOL: Final = {1053, 1290, 1792, 1836}  # shutting down; read-only: another server has, or soon will have, the writes
LOST: Final = {1040, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 2002, 2003, 2006, 2013, 2055, 4031}  # full, cut, killed, away
DENIED: Final = {1044, 1142, 1143, 1227, 1370}
ABSENT: Final = {1049, 1146}
# What the server, or the URL, must be told: number → what is wrong, and what mends it.
_STRANGER: Final = (
    "the server does not let this account in from this host with this password",
    "check user and password in the URL: they may have been changed since",
)
TO_SET: Final = {
    1045: _STRANGER,
    1698: _STRANGER,
    1153: ("a statement is larger than the server accepts", "SET GLOBAL max_allowed_packet = 67108864"),
    1419: (
        "the server logs its changes, and lets no account without SUPER make a trigger",
        "SET GLOBAL log_bin_trust_function_creators = ON for the upgrade, or let a DBA run: batchscore db upgrade --sql",
    ),
}
# Doing such a statement again gives the same: it, or what it would write, is wrong. Of SQLAlchemy's own a pool's wait is not.
_OF_OURS: Final = (
    sa.exc.ProgrammingError, sa.exc.IntegrityError, sa.exc.DataError, sa.exc.NotSupportedError,
    sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError, OverflowError,
)  # fmt: skip
_OF_THE_DATABASE: Final = (sa.exc.DBAPIError, sa.exc.TimeoutError)
UNSAFE: Final = 2026  # the server has no TLS, and the URL asks for it


def code_of(error: BaseException | None) -> int | None:
    """MySQL's number of a driver's error; None for others."""
    first = error.args[0] if error is not None and error.args else None
    return first if isinstance(first, int) else None


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Errors of SQLAlchemy and its drivers leave the block as ours; ours pass through.

    Raises:
        TryAgain: the same transaction from its start may succeed.
        Refused: the database is not there, not ours to open, or not ours to write.
        StatementWrong: the statement, or what it would write.
        DatabaseFailed: anything else.
    """
    try:
        yield
    except BatchscoreError:
        raise
    except sa.exc.DBAPIError as error:
        raise ours(error, where) from None
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OverflowError) as error:
        raise _refused_statement(error, where) from None


def ours(error: sa.exc.DBAPIError, where: str) -> BatchscoreError:
    """What a driver's error means."""
    code = code_of(error.orig)
    if code == UNSAFE or isinstance(getattr(error.orig, "original_exception", None), ssl.SSLError):  # the latter comes as 2003
        return Refused(
            "database_setup",
            "the server did not prove to be the one of the URL: it has no TLS, or no trusted certificate for that host",
            where=where,
            remedy="check ssl_ca in the URL, and that its host is a name in the server's certificate",
        )
    if code is not None or is_lost(error):
        return _of_mysql(error, code, where)
    return _of_sqlite(error, where) if isinstance(error, sa.exc.OperationalError) else _refused_statement(error, where)


def is_lost(error: sa.exc.DBAPIError) -> bool:
    """Whether nobody knows what the server made of the statement: the connection went away under it."""
    return error.connection_invalidated or code_of(error.orig) in LOST | DROP_POOL or _out_of_step(error)


def _out_of_step(error: sa.exc.DBAPIError) -> bool:
    """Whether PyMySQL read a packet of another answer, as after a cut: it closes that connection, and its error has no number."""
    return isinstance(error, sa.exc.InternalError) and code_of(error.orig) is None and not isinstance(error.orig, sqlite3.Error)


def _of_mysql(error: sa.exc.DBAPIError, code: int | None, where: str) -> BatchscoreError:
    if code in CONTENDED:
        return TryAgain(
            "store_busy", f"other transactions were in the way (MySQL {code})", where=where, remedy="see who holds the locks"
        )
    if is_lost(error):
        said = f"MySQL {code}" if code else "connection closed"
        return TryAgain(
            "database_away", f"the database went away ({said})", where=where, remedy="once it is back, resume the run"
        )
    if code in DENIED:
        return Refused(
            "database_setup",
            f"the database account lacks a right (MySQL {code})",
            where=where,
            remedy="batchscore doctor --spec SPEC says what a driver or reviewer lacks, batchscore db grants SPEC what all need",
        )
    if code in ABSENT:
        return Refused(
            "database_error",
            f"no such database or table (MySQL {code})",
            where=where,
            remedy="check the URL",
        )
    if code in TO_SET:
        what, remedy = TO_SET[code]
        return Refused("database_setup", what, where=where, remedy=remedy)
    return _refused_statement(error, where, code)


def _of_sqlite(error: sa.exc.OperationalError, where: str) -> BatchscoreError:
    said = str(error.orig).lower()
    if "locked" in said or "busy" in said:
        return DatabaseFailed(
            "store_busy",
            f"the database stayed locked for {BUSY_S} s",
            where=where,
            remedy="see who holds it: fuser STORE/batchscore.db",
        )
    if "unable to open" in said:
        return Refused(
            "database_error", "the database file cannot be opened", where=where, remedy="check the path and its rights"
        )
    if "readonly" in said or "read-only" in said:
        return Refused("database_error", "the database is read-only", where=where, remedy="give the driver the right to write it")
    if "full" in said or "disk i/o" in said:
        return DatabaseFailed(
            "write_failed", "the disk is full or failing", where=where, remedy="free space on its disk, or mend it"
        )
    return _refused_statement(error, where)


def _refused_statement(error: BaseException, where: str, code: int | None = None) -> BatchscoreError:
    said = type(error).__name__ + (f", MySQL {code}" if code else "")
    if isinstance(error, _OF_OURS) or (isinstance(error, sa.exc.SQLAlchemyError) and not isinstance(error, _OF_THE_DATABASE)):
        return StatementWrong(
            "statement_wrong",
            f"the database refused a statement as wrong ({said})",
            where=where,
            remedy="it is a bug, or the tables were changed by hand: look into the log of the database",
        )
    return DatabaseFailed(
        "database_error",
        f"the database refused a statement ({said})",
        where=where,
        remedy="look into the log of the database",
    )
