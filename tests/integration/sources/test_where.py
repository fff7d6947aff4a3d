"""A source's ``where`` keeps the rows that the same filter keeps of all that is read, on SQLite and by either way on MySQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from batchscore.database import open_engine
from batchscore.errors import BatchscoreError, PartitionError
from batchscore.features.tables import AccountsTable
from batchscore.features.where import mask_of, refusal_of
from batchscore.settings import database_url
from batchscore.sources import mysql, mysql_ranges, sqlite
from batchscore.sources.sql import inspect_table, key_ranges, read_pages
from batchscore.spec import SqlSource
from batchscore.where import Where
from tests.mysql_server import MySqlServer

ACCOUNTS = AccountsTable(table="accounts", key="id")
NUMBERS = ("whole", "large", "amount", "ratio", "single")
TEXTS = ("name",)
HOSTILE = [
    "x') OR 1=1; DROP TABLE accounts; -- ",
    "\\",
    "\\'",
    "%s",
    "%",
    "';",
    "`",
    '"',
    ":name",
    "\0",
    "active\n",
    "\U0001f600",
]
WORDS = ["active", "Active", "active ", "", "é", "e\u0301", "closed", "ß", "ss", *HOSTILE]
ROWS: list[tuple[Any, ...]] = [
    (
        n,
        [None, 0, 1, -1, 2**31 - 1][n % 5],
        [None, 0, 2**53 + 1, 2**53, 2**63 - 1, 7][n % 6],
        [None, 0.1, 0.2, 12.5, -3.25, 0.0, 99999.99][n % 7],
        [None, 0.1, 0.30000000000000004, 1e300, -0.0, 5e-324, 1.0][n % 7],
        [None, 0.5, -2.0, 16777216.0][n % 4],
        WORDS[n % len(WORDS)] if n % 11 else None,
        [None, "2026-01-01 00:00:00"][n % 2],
    )
    for n in range(120)
]
IN_MYSQL = (
    "CREATE TABLE accounts (id BIGINT PRIMARY KEY, whole INT, large BIGINT UNSIGNED, amount DECIMAL(10, 2), ratio DOUBLE, "
    "single FLOAT, name VARCHAR(60) COLLATE utf8mb4_general_ci, closed_at DATETIME, INDEX (whole), INDEX (name))"
)
IN_SQLITE = (
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, whole INT, large BIGINT, amount DOUBLE, ratio DOUBLE, single FLOAT, "
    "name VARCHAR(60) COLLATE NOCASE, closed_at DATETIME)"
)

TYPES = pa.schema(
    [("id", pa.int64()), ("whole", pa.int64()), ("large", pa.uint64()), ("amount", pa.decimal128(10, 2)), ("ratio", pa.float64()),
     ("single", pa.float64()), ("name", pa.string())]
)  # fmt: skip
IN_FLOATS = TYPES.set(3, pa.field("amount", pa.float64()))


def filter_of(written: Any) -> Where:
    return TypeAdapter(Where).validate_python(written)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The accounts of `ROWS`, in a database of one kind, read by one way."""

    execute: Callable[..., object]
    is_mysql: bool

    def source(self, where: Any = (), table: str = "accounts") -> SqlSource:
        return SqlSource(url="live", table=table, where=filter_of(where) if where else ())

    def read(self, source: SqlSource) -> list[dict[str, Any]]:
        pages = [
            page
            for bounds in key_ranges(source, ACCOUNTS, "integer")
            for page, _ in read_pages(source, ACCOUNTS, (*NUMBERS, *TEXTS), "integer", bounds, categories=TEXTS)
        ]
        rows = [row for page in pages for row in page.to_pylist()]
        return sorted(rows, key=lambda row: row["id"])

    def kept(self, where: Any = ()) -> list[dict[str, Any]]:
        return self.read(self.source(where))

    def keys(self, where: Any = ()) -> list[Any]:
        return [row["id"] for row in self.kept(where)]

    def problems(self, where: Any) -> str:
        return "\n".join(map(str, inspect_table(self.source(where), ACCOUNTS, NUMBERS)[1]))


@contextmanager
def in_sqlite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    path = folder / "live.db"
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", f"sqlite:///{path}")

    def execute(*statements: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    execute(IN_SQLITE)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(f"INSERT INTO accounts VALUES ({','.join('?' * 8)})", ROWS)
    monkeypatch.setattr(sqlite, "PAGE_ROWS", 7)
    yield Table(execute=execute, is_mysql=False)


@contextmanager
def on_mysql(server: MySqlServer, monkeypatch: pytest.MonkeyPatch, *, fast: bool) -> Iterator[Table]:
    url = server.make_database()
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", url)
    monkeypatch.setattr(mysql, "can_read_fast", lambda _url: fast)
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 40)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 7)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(IN_MYSQL)
        connection.exec_driver_sql(f"INSERT INTO accounts VALUES ({','.join(['%s'] * 8)})", ROWS)
    engine.dispose()
    database = url.rpartition("/")[2]
    yield Table(execute=partial(server.execute, database=database), is_mysql=True)


@pytest.fixture(
    params=["sqlite", *(pytest.param(way, marks=pytest.mark.mysql) for way in ("pymysql", "connectorx"))], scope="module"
)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """One for all tests, which leave it as it was."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if request.param == "sqlite":
            with in_sqlite(tmp_path_factory.mktemp("live"), monkeypatch) as made:
                yield made
            return
        if request.param == "connectorx":
            pytest.importorskip("connectorx")
        server = request.getfixturevalue("mysql_server")
        with on_mysql(server, monkeypatch, fast=request.param == "connectorx") as made:
            yield made


OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
LISTS = st.sampled_from(["in", "not in"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "whole": st.sampled_from([0, 1, -1, 2**31 - 1, 5, -(2**40)]),
    "large": st.sampled_from([0, 2**53 + 1, 2**53, 2**63 - 1, 7]),
    "amount": st.sampled_from([0.1, 0.2, 12.5, -3.25, 99999.99, 0.3, 0.0]),
    "ratio": st.sampled_from([0.1, 0.30000000000000004, 0.3, 1e300, 0.0, 5e-324, 1.0]),
    "single": st.sampled_from([0.5, -2.0, 16777216.0, 0.1]),
    "name": st.sampled_from([*WORDS, "ACTIVE", " active", "z"]),
}


@st.composite
def conditions(draw: st.DrawFn) -> list[Any]:
    column = draw(st.sampled_from(sorted(VALUES)))
    kind = draw(st.sampled_from(["one", "one", "list", "null"]))
    if kind == "null":
        return [column, draw(st.sampled_from(["is", "is not"])), None]
    if kind == "list":
        return [column, draw(LISTS), draw(st.lists(VALUES[column], min_size=1, max_size=4))]
    return [column, draw(OPERATORS), draw(VALUES[column])]


@given(where=st.lists(st.lists(conditions(), min_size=1, max_size=3), min_size=1, max_size=3))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_those_that_the_filter_keeps_of_all_that_is_read(table: Table, where: list[Any]) -> None:
    rows = table.kept()
    everything = pa.Table.from_pylist(rows, TYPES if table.is_mysql else IN_FLOATS)
    asked = filter_of(where)
    assert not [one for every in asked for one in every if refusal_of(everything.schema.field(one.column).type, one)]
    assert table.problems(where) == ""
    assert table.kept(where) == [row for row, keep in zip(rows, mask_of(everything, asked), strict=True) if keep]


def test_nothing_or_everything_may_be_kept(table: Table) -> None:
    assert table.keys([["whole", "==", 12345]]) == []
    assert table.keys([["id", ">=", 0]]) == [row[0] for row in ROWS]


def test_a_column_that_no_feature_reads_and_of_any_type_may_be_asked_for_null(table: Table) -> None:
    assert table.keys([["closed_at", "is", None]]) == [row[0] for row in ROWS if row[7] is None]
    assert table.keys([["closed_at", "is not", None]]) == [row[0] for row in ROWS if row[7] is not None]


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_value_is_just_a_value(table: Table, word: str) -> None:
    assert table.keys([["name", "==", word]]) == [row[0] for row in ROWS if row[6] == word]
    assert table.keys([["name", "in", [word, "closed"]]]) == [row[0] for row in ROWS if row[6] in {word, "closed"}]


@pytest.mark.parametrize(
    "name", ["id) OR (1=1", "id`) OR (1=1) -- ", 'id") OR (1=1) -- ', "SLEEP(9)", "1=1; DROP TABLE accounts"]
)
def test_a_hostile_column_is_refused_as_missing(table: Table, name: str) -> None:
    assert "column_missing" in table.problems([[name, "==", 1]])
    with pytest.raises(BatchscoreError):
        table.keys([[name, "==", 1]])
    assert len(table.keys()) == len(ROWS)


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (["nowhere", "==", 1], "column_missing"),
        (["whole", "==", True], "column_type"),
        (["large", "==", 2**64], "column_type"),
    ],
)
def test_what_cannot_be_compared_is_refused_when_planning_without_its_value(
    table: Table, condition: list[Any], reason: str
) -> None:
    said = table.problems([condition])
    assert reason in said
    assert str(2**64) not in said


@pytest.mark.parametrize(
    "condition",
    [
        ["whole", "==", "canary"],
        ["name", "==", 4711],
        ["whole", "==", 0.5],
        ["closed_at", "==", "2026-01-01"],
    ],
)
def test_types_that_are_compared_only_by_a_guess_are_refused_by_mysql(table: Table, condition: list[Any]) -> None:
    if table.is_mysql:
        said = table.problems([condition])
        assert "column_type" in said
        assert "canary" not in said
        assert "4711" not in said
        with pytest.raises(PartitionError):
            table.keys([condition])
    else:  # any column may hold anything there: what is of another kind satisfies nothing
        assert table.keys([condition]) == []


def test_rows_without_a_key_count_where_they_are_kept(table: Table) -> None:
    ddl = ("id BIGINT, whole INT, INDEX (id)" if table.is_mysql else "id BIGINT, whole INT",)
    table.execute(f"CREATE TABLE some ({ddl[0]})", "INSERT INTO some VALUES (NULL, 1), (NULL, 2), (5, 1), (6, 2)")
    source = SqlSource(url="live", table="some", where=filter_of([["whole", "==", 1]]))
    accounts = AccountsTable(table="some", key="id")
    found = [
        key
        for bounds in key_ranges(source, accounts, "integer")
        for page, _ in read_pages(source, accounts, (), "integer", bounds)
        for key in page["id"].to_pylist()
    ]
    table.execute("DROP TABLE some")
    assert found == [None, 5]


def test_values_are_those_of_a_view_with_the_same_filter(table: Table) -> None:
    exact = "BINARY name = 'active'" if table.is_mysql else "name = 'active' COLLATE BINARY"
    said = f"{exact} AND closed_at IS NULL OR whole > 0 AND amount <= 0.2"
    table.execute(f"CREATE VIEW kept AS SELECT * FROM accounts WHERE {said}")
    by_view = table.read(table.source(table="kept"))
    table.execute("DROP VIEW kept")
    where = [
        [["name", "==", "active"], ["closed_at", "is", None]],
        [["whole", ">", 0], ["amount", "<=", 0.2]],
    ]
    assert {row["name"] for row in by_view} > {"active"}
    assert table.kept(where) == by_view


@pytest.mark.parametrize("name", ["50%", "%s", "a%%b", "`", ":name", "x\\y", '"'])
def test_a_hostile_name_of_a_table_or_column_is_just_a_name(table: Table, name: str) -> None:
    """Also of a key that may be null, whose rows are counted apart."""
    mark = "`" if table.is_mysql else '"'
    quoted, key = (f"{mark}{said.replace(mark, mark * 2)}{mark}" for said in (name, f"key {name}"))
    table.execute(
        f"CREATE TABLE {quoted} ({key} BIGINT, {quoted} INT, UNIQUE ({key}))",
        f"INSERT INTO {quoted} VALUES (1, 5), (2, 6), (3, 5), (NULL, 5), (NULL, 6)",
    )
    source = SqlSource(url="live", table=name, where=filter_of([[name, "==", 5]]))
    accounts = AccountsTable(table="accounts", key=f"key {name}")
    problems = inspect_table(source, accounts, (name,))[1]
    found = [
        (row[f"key {name}"], row[name])
        for bounds in key_ranges(source, accounts, "integer")
        for page, _ in read_pages(source, accounts, (name,), "integer", bounds)
        for row in page.to_pylist()
    ]
    table.execute(f"DROP TABLE {quoted}")
    assert (problems, found) == ((), [(None, None), (1, 5), (3, 5)])


@pytest.mark.mysql
@pytest.mark.parametrize("table", ["pymysql", "connectorx"], indirect=True)
def test_a_page_walks_along_the_key_and_sorts_nothing(table: Table) -> None:
    """Though the filter's own columns have indexes, by which the server would find rows and then sort them."""
    asked: list[str] = []

    def heard(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        if "ORDER BY" in statement and "IF(" in statement:
            asked.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", heard)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(mysql, "can_read_fast", lambda _url: False)
            assert table.keys([["whole", "==", 1], ["name", "in", ["active", "closed"]]])
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", heard)
    assert len(asked) > 2
    with open_engine(database_url("live")).connect() as connection:
        for statement in asked:
            (row,) = connection.exec_driver_sql(f"EXPLAIN {statement}").mappings()
            assert (row["key"], row["type"]) == ("PRIMARY", "range")
            assert "filesort" not in (row["Extra"] or "")
