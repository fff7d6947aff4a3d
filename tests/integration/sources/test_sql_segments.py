"""The segment of accounts in a live table: text as it is written, and refused where it names no group."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batchscore.errors import PartitionError
from batchscore.features.tables import AccountsTable
from batchscore.sources.sql import inspect_table, read_pages
from batchscore.spec import SqlSource

SOURCE = SqlSource(url="live", table="accounts")
ACCOUNTS = AccountsTable(table="accounts", key="id", immutable=("plan",))


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with a column of each kind."""
    path = tmp_path / "live.db"
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE accounts (id INTEGER, plan INTEGER, country TEXT, mixed, ratio REAL, at DATETIME)")
        rows = [(1, 0, "de", 1, 0.5, None), (2, 1, "<b>", "1", 0.5, None), (3, 2, None, None, 0.5, None)]
        connection.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)", rows)
    return path


def names(segment: str, columns: tuple[str, ...] = ("plan",)) -> list[str | int | None]:
    pages = read_pages(SOURCE, ACCOUNTS, columns, "integer", (None, 3), (segment,))
    return [name for page, _ in pages for name in page[segment].to_pylist()]


def test_text_names_groups_and_null_names_none(live: Path) -> None:
    assert inspect_table(SOURCE, ACCOUNTS, ("plan",), ("country",))[1] == ()
    assert names("country") == ["de", "<b>", None]


def test_a_group_is_named_by_what_is_written(live: Path) -> None:
    assert names("mixed") == ["1", "1", None]


def test_a_column_that_features_read_stays_what_it_is_for_them(live: Path) -> None:
    assert names("plan") == [0, 1, 2]


@pytest.mark.parametrize(("segment", "problem"), [("ratio", "column_type"), ("at", "column_type"), ("contry", "column_missing")])
def test_a_column_that_names_no_group_is_found_when_planning(live: Path, segment: str, problem: str) -> None:
    (found,) = inspect_table(SOURCE, ACCOUNTS, ("plan",), (segment,))[1]
    assert found.what.startswith(problem)


def test_a_value_that_names_no_group_sets_the_partition_aside_and_is_not_told(live: Path) -> None:
    with closing(sqlite3.connect(live)) as connection, connection:
        connection.execute("INSERT INTO accounts VALUES (3, 0, 1, 0.125, 0.5, NULL)")
    with pytest.raises(PartitionError, match="names no group") as found:
        names("mixed")
    assert "0.125" not in str(found.value)
