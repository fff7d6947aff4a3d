"""What an error of a database means: only what the database itself may get over is called resumable."""

from __future__ import annotations

import sqlite3

import pymysql
import pytest
import sqlalchemy as sa

from batchscore.database import translated
from batchscore.errors import BUG, DatabaseFailed, StatementWrong, TryAgain


def raised(error: Exception) -> Exception:
    with pytest.raises(Exception) as caught, translated("store"):  # noqa: PT011 (which, is what is asked)
        raise error
    return caught.value


def by_driver(kind: type[sa.exc.DBAPIError], original: Exception) -> sa.exc.DBAPIError:
    return kind("SELECT 1", {}, original)


@pytest.mark.parametrize(
    "error",
    [
        by_driver(sa.exc.ProgrammingError, pymysql.err.ProgrammingError(1064, "syntax")),
        by_driver(sa.exc.IntegrityError, pymysql.err.IntegrityError(1062, "duplicate anna@example.org")),
        by_driver(sa.exc.DataError, pymysql.err.DataError(1406, "too long")),
        by_driver(sa.exc.IntegrityError, sqlite3.IntegrityError("UNIQUE constraint failed")),
        sa.exc.InvalidRequestError("no such attribute"),
        OverflowError("Python int too large to convert to SQLite INTEGER"),
    ],
)
def test_a_statement_that_is_wrong_is_a_bug_and_never_resumable(error: Exception) -> None:
    found = raised(error)
    assert isinstance(found, StatementWrong)
    assert (found.reason, found.exit_code) == ("statement_wrong", BUG)
    assert "anna" not in str(found)


@pytest.mark.parametrize(
    "error",
    [
        by_driver(sa.exc.OperationalError, pymysql.err.OperationalError(1114, "the table is full")),
        by_driver(sa.exc.InternalError, pymysql.err.InternalError(126, "index file")),
        sa.exc.TimeoutError("QueuePool limit"),
        by_driver(sa.exc.OperationalError, sqlite3.OperationalError("database is locked")),
    ],
)
def test_what_the_database_may_get_over_is_resumable(error: Exception) -> None:
    found = raised(error)
    assert isinstance(found, DatabaseFailed)
    assert not isinstance(found, TryAgain)


@pytest.mark.parametrize(
    "error",
    [
        by_driver(sa.exc.OperationalError, pymysql.err.OperationalError(1213, "deadlock")),
        by_driver(sa.exc.OperationalError, pymysql.err.OperationalError(2013, "lost connection")),
        by_driver(sa.exc.InternalError, pymysql.err.InternalError("Packet sequence number wrong - got 2 expected 1")),
    ],
)
def test_a_deadlock_and_a_connection_that_is_gone_are_tried_again(error: Exception) -> None:
    assert isinstance(raised(error), TryAgain)
