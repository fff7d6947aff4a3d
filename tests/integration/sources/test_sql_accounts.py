"""Accounts of a live table arrive exactly once and exactly as they stand; what cannot be read exactly is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.drafts import Drafts
from batchscore.errors import BatchscoreError, PartitionError, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import AccountsTable, TimeColumn
from batchscore.keys import IdKind
from batchscore.plan import FreezeSql, Reference
from batchscore.sources import sqlite
from batchscore.sources.brake import Brake
from batchscore.sources.freeze import freeze_sql, live_source
from batchscore.sources.sql import inspect_table, key_ranges, read_pages
from batchscore.spec import Gentle, SqlSource

PASSWORD = "canary-hunter2"
SOURCE = SqlSource(url="live", table="accounts")
ACCOUNTS = AccountsTable(table="accounts", key="id", immutable=("plan",))
US = 1_000_000


@pytest.fixture(autouse=True)
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / PASSWORD
    folder.mkdir()
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", f"sqlite:///{folder / 'live.db'}")
    return folder / "live.db"


def make(path: Path, ddl: str, rows: Iterable[tuple[Any, ...]] = (), table: str = "accounts") -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(ddl)
        for row in rows:
            quoted = table.replace('"', '""')
            connection.execute(f'INSERT INTO "{quoted}" VALUES ({",".join("?" * len(row))})', row)


def everything(
    kind: IdKind, accounts: AccountsTable = ACCOUNTS, columns: tuple[str, ...] = ("plan",), source: SqlSource = SOURCE
) -> list[pa.Table]:
    (bounds,) = key_ranges(source, accounts, kind)
    return [page for page, _ in read_pages(source, accounts, columns, kind, bounds)]


def keys(kind: IdKind, **more: Any) -> list[Any]:
    return [key for page in everything(kind, **more) for key in page["id"].to_pylist()]


def freeze(
    kind: IdKind, store: Path, accounts: dict[str, Any] | None = None, high: Any = "look"
) -> tuple[pa.Table, dict[str, int]]:
    import pyarrow.parquet as pq

    feature_set = FeatureSet.model_validate(
        {
            "feature_set": "x",
            "version": 1,
            "account_id": kind,
            "accounts": accounts or ACCOUNTS.model_dump(),
            "features": {"plan": {"column": "plan"}},
        }
    )
    bound = key_ranges(SOURCE, feature_set.accounts, kind)[0][1] if high == "look" else high
    work = FreezeSql(
        table="accounts", feature_set=Reference(path="", sha256=""), url="live", sql_table="accounts", high=bound, opened_for="r"
    )
    with Drafts(store, "freeze/x") as drafts:
        counts, _ = freeze_sql(work, drafts, feature_set, Brake(live_source(work, Gentle())))
        tables = [pq.read_table(store / output.path) for output in drafts.publish() if output.role == "snapshot"]
    return pa.concat_tables(tables, promote_options="permissive"), counts


@pytest.mark.parametrize("page_rows", [1, 2, 3, 10_000])
def test_integer_keys_are_exact_at_the_edges_of_64_bits(page_rows: int, url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    edges = [0, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1]
    make(url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, plan INTEGER)", [(key, 1) for key in edges])
    assert keys("integer") == edges


@pytest.mark.parametrize("page_rows", [1, 2, 3, 10_000])
def test_text_keys_are_exact_to_the_byte(page_rows: int, url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    words = [
        "",
        "0",
        "00",
        "007",
        "7",
        " 7",
        "7 ",
        "e\u0301",
        "\u00e9",
        "\U0001f600",
        "\uffff",
        "A",
        "a",
        "a\0b",
        "18446744073709551615",
    ]
    make(url, "CREATE TABLE accounts (id TEXT PRIMARY KEY, plan INTEGER)", [(key, 1) for key in words])
    assert sorted(keys("string")) == sorted(words)


@pytest.mark.parametrize("page_rows", [1, 2, 3, 5])
@pytest.mark.parametrize("collation", ["NOCASE", "RTRIM", "BINARY"])
def test_keys_that_a_collation_holds_equal_all_come_once_though_they_straddle_a_page(
    page_rows: int, collation: str, url: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    words = ["a", "A", "b", "B", "bb", "bB", "BB", "Bb", "b ", "b  ", "c", "Z", "z"]
    make(url, f"CREATE TABLE accounts (id TEXT COLLATE {collation}, plan INTEGER)", [(key, 1) for key in words])
    assert sorted(keys("string")) == sorted(words)


@settings(max_examples=25, deadline=None)
@given(words=st.lists(st.text(st.sampled_from("aAbB \u00e9"), max_size=3), unique=True, max_size=12), page_rows=st.integers(1, 5))
def test_every_text_key_comes_exactly_once_whatever_the_page(words: list[str], page_rows: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("db") / "live.db"
    make(path, "CREATE TABLE accounts (id TEXT COLLATE NOCASE, plan INTEGER)", [(key, 1) for key in words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCHSCORE_URL_LIVE", f"sqlite:///{path}")
        patch.setattr(sqlite, "PAGE_ROWS", page_rows)
        assert sorted(keys("string")) == sorted(words)


@pytest.mark.parametrize("values", [[1, 2.5], [1.5], [1, 2, 3, 9.0e18], [1, "x"], [1, b"\x01"]])
@pytest.mark.parametrize("page_rows", [1, 2, 10])
def test_a_key_that_is_no_integer_in_an_integer_column_is_refused(
    values: list[Any], page_rows: int, url: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    make(url, "CREATE TABLE accounts (id, plan INTEGER)", [(key, 1) for key in values])
    with pytest.raises(BatchscoreError) as caught:
        everything("integer")
    assert caught.value.reason == ("id_physical_type" if isinstance(values[-1], float) else "column_type")
    assert "9.0e" not in str(caught.value)
    assert "2.5" not in str(caught.value)


def test_integer_keys_where_text_is_declared_are_refused(url: Path) -> None:
    make(url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, plan INTEGER)", [(1, 1)])
    with pytest.raises(Refused) as caught:
        everything("string")
    assert caught.value.reason == "column_type"


@pytest.mark.parametrize("values", [[b"a", b"b"], ["a", b"b"]])
def test_keys_of_bytes_are_refused_not_lost_or_read_for_ever(
    values: list[Any], url: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", 1)
    make(url, "CREATE TABLE accounts (id, plan INTEGER)", [(key, 1) for key in values])
    with pytest.raises(Refused) as caught:
        everything("string")
    assert caught.value.reason == "column_type"


def test_null_and_negative_keys_are_rejected_once_and_the_others_kept(
    url: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", 2)
    make(
        url,
        "CREATE TABLE accounts (id INTEGER, plan INTEGER)",
        [(None, 1), (3, 1), (None, 2), (-4, 1), (2**63 - 1, 1), (-(2**63), 5), (0, 1)],
    )
    table, counts = freeze("integer", tmp_path)
    assert table["account_id"].to_pylist() == [0, 3, 2**63 - 1]
    assert counts == {"rows": 7, "rejected null_id": 2, "rejected id_range": 2}


def test_a_table_of_nothing_but_null_keys_is_all_rejects(url: Path, tmp_path: Path) -> None:
    make(url, "CREATE TABLE accounts (id INTEGER, plan INTEGER)", [(None, 1), (None, 2)])
    table, counts = freeze("integer", tmp_path)
    assert (len(table), counts) == (0, {"rows": 2, "rejected null_id": 2})


def test_more_null_keys_than_a_page_come_in_pages(url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", 2)
    make(url, "CREATE TABLE accounts (id INTEGER, plan INTEGER)", [(None, n) for n in range(5)])
    pages = everything("integer")
    assert max(map(len, pages)) <= 2
    assert sum(map(len, pages)) == 5


def test_an_empty_table_gives_an_empty_snapshot(url: Path, tmp_path: Path) -> None:
    make(url, "CREATE TABLE accounts (id INTEGER, plan INTEGER)")
    table, counts = freeze("integer", tmp_path)
    assert (len(table), table.schema.field("account_id").type, counts) == (0, pa.uint64(), {})


def test_a_key_twice_is_refused_as_duplicate_id(url: Path, tmp_path: Path) -> None:
    make(url, "CREATE TABLE accounts (id INTEGER, plan INTEGER)", [(1, 1), (1, 2), (2, 1)])
    with pytest.raises(Refused) as caught:
        freeze("integer", tmp_path)
    assert caught.value.reason == "duplicate_id"


@pytest.mark.parametrize("page_rows", [1, 2, 100])
def test_a_history_comes_whole_whatever_a_page_holds(
    url: Path, tmp_path: Path, page_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    rows = [
        (key, f"2026-01-0{day}", None if day == 4 else f"2026-01-0{day + 1}", key * day) for key in (7, 3) for day in (4, 1, 2)
    ]
    make(url, "CREATE TABLE accounts (id INTEGER, since TEXT, until TEXT, plan INTEGER, PRIMARY KEY (id, since))", rows)
    utc = {"unit": None, "zone": "UTC"}
    history = {"valid_from": {"column": "since", **utc}, "valid_to": {"column": "until", **utc}}
    table, _ = freeze("integer", tmp_path, {"table": "accounts", "key": "id", "history": history})
    assert table["plan"].to_pylist() == [3, 6, 12, 7, 14, 28]
    assert table["valid_to"].is_null().to_pylist() == [False, False, True] * 2


def test_rows_beyond_the_bound_fixed_at_the_start_are_not_read(url: Path) -> None:
    make(url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, plan INTEGER)", [(1, 1), (2, 1), (9, 1)])
    pages = list(read_pages(SOURCE, ACCOUNTS, ("plan",), "integer", (None, 2)))
    assert [key for page, _ in pages for key in page["id"].to_pylist()] == [1, 2]


HOSTILE = ['x"; DROP TABLE accounts; --', "sel ect", "a.b", "%(x)s", ":id", "ä", "'", "`", "[x]", "?", "a%%b", "x\\y"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_of_a_table_or_column_is_just_a_name(name: str, url: Path) -> None:
    quoted = name.replace('"', '""')
    make(url, f'CREATE TABLE "{quoted}" ("{quoted} key" INTEGER PRIMARY KEY, "{quoted}" INTEGER)', [(1, 5), (2, 6)], table=name)
    make(url, "CREATE TABLE accounts (id INTEGER)")
    source = SqlSource(url="live", table=name)
    accounts = AccountsTable(table="accounts", key=f"{name} key", immutable=(name,))
    observed, problems = inspect_table(source, accounts, (name,))
    assert (problems, observed["rows of accounts"]) == ((), 2)
    (page,) = everything("integer", accounts, (name,), source)
    assert page.to_pydict() == {f"{name} key": [1, 2], name: [5, 6]}
    with closing(sqlite3.connect(url)) as connection:
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (0,)


def test_a_table_that_is_not_there_is_refused_with_a_near_name(url: Path) -> None:
    make(url, "CREATE TABLE Acounts (id INTEGER)")
    with pytest.raises(Refused) as caught:
        inspect_table(SOURCE, ACCOUNTS, ("plan",))
    assert caught.value.reason == "table_missing"
    assert "'Acounts'" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_columns_that_are_not_there_come_together_with_near_names(url: Path) -> None:
    make(url, "CREATE TABLE accounts (ID INTEGER, plans INTEGER)")
    _, problems = inspect_table(SOURCE, ACCOUNTS, ("plan",))
    assert [(problem.where, problem.remedy) for problem in problems] == [
        ("accounts.id", "did you mean 'ID'?"), ("accounts.plan", "did you mean 'plans'?")]  # fmt: skip
    assert all(problem.what.startswith("column_missing") for problem in problems)


@pytest.mark.parametrize("column", ["id REAL", "id DOUBLE", "id FLOAT", "id DECIMAL(20, 0)", "id BOOLEAN"])
def test_keys_declared_as_float_decimal_or_bool_are_refused_when_planning(column: str, url: Path) -> None:
    make(url, f"CREATE TABLE accounts ({column}, plan INTEGER)")
    _, problems = inspect_table(SOURCE, ACCOUNTS, ("plan",))
    assert [problem.what.partition(":")[0] for problem in problems] == ["id_physical_type"]


@pytest.mark.parametrize("declared", ["REAL", "INTEGER", "DECIMAL(9, 2)", "BOOLEAN", "DATETIME", "BLOB"])
def test_a_column_declared_as_no_text_is_no_category(declared: str, url: Path) -> None:
    make(url, f"CREATE TABLE accounts (id INTEGER, plan {declared})")
    (problem,) = inspect_table(SOURCE, ACCOUNTS, ("plan",), (), ("plan",))[1]
    assert "no text" in problem.what


def test_a_view_is_as_good_as_a_table(url: Path) -> None:
    make(url, "CREATE TABLE t (id INTEGER, plan INTEGER)", [(1, 2)], table="t")
    make(url, "CREATE VIEW accounts AS SELECT * FROM t")
    assert inspect_table(SOURCE, ACCOUNTS, ("plan",))[1] == ()
    assert keys("integer") == [1]


def test_a_database_file_that_is_not_there_is_refused_and_not_made(url: Path) -> None:
    for ask in (lambda: inspect_table(SOURCE, ACCOUNTS, ("plan",)), lambda: key_ranges(SOURCE, ACCOUNTS, "integer")):
        with pytest.raises(Refused) as caught:
            ask()
        assert PASSWORD not in str(caught.value)
    assert list(url.parent.iterdir()) == []


def test_a_file_that_is_no_database_is_told_without_its_url(url: Path) -> None:
    url.write_bytes(b"not a database" * 100)
    with pytest.raises(BatchscoreError) as caught:
        inspect_table(SOURCE, ACCOUNTS, ("plan",))
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_url_that_is_not_set_is_secret_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHSCORE_URL_LIVE")
    with pytest.raises(Refused) as caught:
        inspect_table(SOURCE, ACCOUNTS, ("plan",))
    assert caught.value.reason == "secret_missing"


TIMES: dict[str, tuple[TimeColumn, list[Any], list[int | None]]] = {
    "integers in seconds": (
        TimeColumn(column="at", unit="s"),
        [0, 2**31, None, -62_135_596_800],
        [0, 2**31 * US, None, -62_135_596_800 * US],
    ),
    "integers in milliseconds": (TimeColumn(column="at", unit="ms"), [1_500, None], [1_500_000, None]),
    "text with zones": (TimeColumn(column="at"), ["1970-01-01T01:00:00+01:00", "1970-01-01 00:00:01Z", None], [0, US, None]),
    "text with zones, the first null": (TimeColumn(column="at"), [None, "1970-01-01T00:00:00Z"], [None, 0]),
    "naive text with a declared zone": (TimeColumn(column="at", zone="Europe/Berlin"), ["1970-01-01 01:00:00", None], [0, None]),
    "naive dates with a declared zone": (TimeColumn(column="at", zone="UTC"), ["1970-01-02", None], [86_400 * US, None]),
    "years 102 and 9999": (
        TimeColumn(column="at", zone="UTC"),
        ["0102-01-01", "9999-12-31T23:59:59.999999"],
        [int(datetime(102, 1, 1, tzinfo=UTC).timestamp()) * US, 253_402_300_799_999_999],
    ),
    "nothing but nulls": (TimeColumn(column="at"), [None, None], [None, None]),
    "nothing but nulls, a zone declared": (TimeColumn(column="at", zone="UTC"), [None, None], [None, None]),
}


@pytest.mark.parametrize("page_rows", [1, 10])
@pytest.mark.parametrize("case", list(TIMES))
def test_times_are_exact_in_utc_from(
    case: str, page_rows: int, url: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, values, wanted = TIMES[case]
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    make(
        url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, plan INTEGER, at)", [(n, 1, value) for n, value in enumerate(values)]
    )
    table, _ = freeze("integer", tmp_path, ACCOUNTS.model_dump() | {"created_at": time})
    assert table["created_at"].cast(pa.int64()).to_pylist() == wanted


BAD_TIMES: dict[str, tuple[TimeColumn, list[Any], str]] = {
    "naive text without a zone": (TimeColumn(column="at"), ["1970-01-01 00:00:00"], "naive_timestamp"),
    "integers without a unit": (TimeColumn(column="at"), [5], "column_type"),
    "text that is no time": (TimeColumn(column="at", zone="UTC"), ["canary-hunter2"], "column_type"),
    "floats": (TimeColumn(column="at", unit="s"), [1.5], "column_type"),
    "text with and without a zone": (TimeColumn(column="at", zone="UTC"), ["1970-01-01", "1970-01-01T00:00Z"], "column_type"),
    "integers and text": (TimeColumn(column="at", unit="s", zone="UTC"), [1, "1970-01-01"], "column_type"),
    "a local time that exists twice": (TimeColumn(column="at", zone="Europe/Berlin"), ["2025-10-26 02:30:00"], "naive_timestamp"),
}


@pytest.mark.parametrize("case", list(BAD_TIMES))
def test_times_are_refused_not_guessed_from(case: str, url: Path, tmp_path: Path) -> None:
    time, values, reason = BAD_TIMES[case]
    make(
        url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, plan INTEGER, at)", [(n, 1, value) for n, value in enumerate(values)]
    )
    with pytest.raises(BatchscoreError) as caught:
        freeze("integer", tmp_path, ACCOUNTS.model_dump() | {"created_at": time})
    assert caught.value.reason == reason
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("page_rows", [1, 10])
@pytest.mark.parametrize(
    ("values", "wanted"),
    [([1, None, 3], [1, None, 3]), ([1, 2.5], [1.0, 2.5]), ([None, None], [None, None]), ([None, 2**60], [None, 2**60])],
)
def test_a_features_column_keeps_its_values(
    values: list[Any], wanted: list[Any], page_rows: int, url: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    make(url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, plan)", list(enumerate(values)))
    assert freeze("integer", tmp_path)[0]["plan"].to_pylist() == wanted


@pytest.mark.parametrize("values", [["canary-hunter2"], [1, "x"], [b"x"], [2**60 + 1, 0.5]])
@pytest.mark.parametrize("page_rows", [1, 10])
def test_a_features_column_that_no_number_type_holds_exactly_is_told_without_its_values(
    values: list[Any], page_rows: int, url: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PAGE_ROWS", page_rows)
    make(url, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, plan)", list(enumerate(values)))
    with pytest.raises((Refused, PartitionError)) as caught:
        freeze("integer", tmp_path)
    assert caught.value.reason == "column_type"
    assert PASSWORD not in str(caught.value)
