"""Accounts of a live MySQL table arrive exactly once and exactly as they stand, by PyMySQL and by connectorx alike."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.drafts import Drafts
from batchscore.errors import AttemptFailed, BatchscoreError, PartitionError
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import AccountsTable, History, TimeColumn
from batchscore.keys import IdKind
from batchscore.plan import FreezeSql, Reference
from batchscore.sources import mysql, mysql_ranges
from batchscore.sources.brake import Brake
from batchscore.sources.freeze import freeze_sql, live_source
from batchscore.sources.mysql_fast import FastReader
from batchscore.sources.sql import inspect_table, key_ranges, read_pages
from batchscore.spec import Gentle, SqlSource
from tests.mysql_server import PASSWORD, MySqlServer

pytestmark = pytest.mark.mysql
SOURCE = SqlSource(url="live", table="accounts")
ACCOUNTS = AccountsTable(table="accounts", key="id", immutable=("plan",))
WRITES_S = 500  # rows: what guarantee 19 holds beside
Make = Callable[..., None]


@pytest.fixture
def make(mysql_server: MySqlServer, source_reader: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the table in a database of the test's own; it is read by an account that may do nothing else."""
    url = mysql_server.make_database()
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", source_reader(url))
    database = url.rpartition("/")[2]

    def made(*statements: str) -> None:
        mysql_server.execute("SET sql_mode = ''", *statements, database=database)

    return made


def values(items: list[Any]) -> str:
    return ", ".join(f"({item}, {number})" for number, item in enumerate(items))


def pages(kind: IdKind, accounts: AccountsTable = ACCOUNTS, columns: tuple[str, ...] = ("plan",)) -> list[pa.Table]:
    return [
        page for bounds in key_ranges(SOURCE, accounts, kind) for page, _ in read_pages(SOURCE, accounts, columns, kind, bounds)
    ]


def keys(kind: IdKind) -> list[Any]:
    return [key for page in pages(kind) for key in page["id"].to_pylist()]


@pytest.mark.parametrize("page_rows", [1, 2, 10_000])
def test_unsigned_keys_are_exact_to_the_end_of_64_bits(
    page_rows: int, route: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", page_rows)
    monkeypatch.setattr(mysql, "MOST_PAGE_ROWS", page_rows)
    edges = [0, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
    make(
        "CREATE TABLE accounts (id BIGINT UNSIGNED PRIMARY KEY, plan INT)",
        f"INSERT INTO accounts VALUES {values(edges)}",
    )
    assert keys("integer") == edges


def test_signed_keys_are_exact_and_negative_ones_come_too(route: str, make: Make) -> None:
    edges = [-(2**63), -1, 0, 2**63 - 1]
    make("CREATE TABLE accounts (id BIGINT PRIMARY KEY, plan INT)", f"INSERT INTO accounts VALUES {values(edges)}")
    assert keys("integer") == edges


@pytest.mark.parametrize("page_rows", [1, 3, 10_000])
@pytest.mark.parametrize(
    "column", ["VARCHAR(40) COLLATE utf8mb4_general_ci", "VARCHAR(40) COLLATE utf8mb4_bin", "VARBINARY(160)"]
)
def test_text_keys_are_exact_to_the_byte_whatever_their_collation(
    column: str, page_rows: int, route: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", page_rows)
    monkeypatch.setattr(mysql, "MOST_PAGE_ROWS", page_rows)
    words = [
        "0",
        "00",
        "007",
        " 7",
        "A",
        "a",
        "á",
        "e\u0301",
        "\u00e9",
        "\U0001f600",
        "x'; DROP TABLE accounts; --",
        "a\\b",
        "%s",
    ]
    listed = ", ".join(f"(_utf8mb4 X'{word.encode().hex()}', 1)" for word in words)
    make(f"CREATE TABLE accounts (id {column} NOT NULL, plan INT, INDEX (id))", f"INSERT INTO accounts VALUES {listed}")
    assert sorted(keys("string")) == sorted(words)


def test_ranges_are_balanced_however_skewed_the_keys(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 1_000)
    make(
        "CREATE TABLE accounts (id BIGINT UNSIGNED PRIMARY KEY, plan INT)",
        "INSERT INTO accounts SELECT seq, 1 FROM seq_1_to_4000",
        "INSERT INTO accounts SELECT 18446744073709551615 - seq * 1000003, 2 FROM seq_0_to_1299",
        "INSERT INTO accounts SELECT 1099511627776 * seq, 3 FROM seq_1_to_150",
    )
    ranges = key_ranges(SOURCE, ACCOUNTS, "integer")
    counts = [sum(len(page) for page, _ in read_pages(SOURCE, ACCOUNTS, ("plan",), "integer", bounds)) for bounds in ranges]
    assert len(counts) == 6, "a multiple of the two that are read at a time"
    assert sum(counts) == 5450
    assert max(counts) <= 2 * min(counts)


def test_an_empty_table_and_rows_without_a_key(route: str, make: Make) -> None:
    make("CREATE TABLE accounts (id BIGINT, plan INT, INDEX (id))")
    assert keys("integer") == []
    make("INSERT INTO accounts VALUES (NULL, 1), (5, 2), (NULL, 3)")
    assert keys("integer") == [None, None, 5]


TYPES: dict[str, tuple[str, list[str], list[Any]]] = {
    "tinyint(1)": ("TINYINT(1)", ["0", "1", "-128", "NULL"], [0, 1, -128, None]),
    "bigint unsigned": ("BIGINT UNSIGNED", ["18446744073709551615", "NULL"], [2**64 - 1, None]),
    "int unsigned zerofill": ("INT(8) UNSIGNED ZEROFILL", ["7", "NULL"], [7, None]),
    "float": ("FLOAT", ["0.1", "16777217", "NULL"], [0.10000000149011612, 16777216.0, None]),
    "double": ("DOUBLE", ["0.1", "1e308", "-2.2250738585072014e-308", "NULL"], [0.1, 1e308, -2.2250738585072014e-308, None]),
    "year": ("YEAR", ["2026", "NULL"], [2026, None]),
    "bit": ("BIT(64)", ["b'1'", "18446744073709551615", "NULL"], [1, 2**64 - 1, None]),
    "decimal of many digits": ("DECIMAL(38,4)", ["-0.0001", "1234567890123456789012345678901234.5678", "NULL"],
                               [Decimal("-0.0001"), Decimal("1234567890123456789012345678901234.5678"), None]),
    "decimal without a scale": ("DECIMAL(18,0)", ["-999999999999999999", "NULL"], [-999999999999999999, None]),
}  # fmt: skip


@pytest.mark.parametrize("case", list(TYPES))
def test_numbers_are_the_same_by_either_driver(case: str, route: str, make: Make) -> None:
    declared, written, wanted = TYPES[case]
    listed = ", ".join(f"({n}, {value})" for n, value in enumerate(written))
    make(f"CREATE TABLE accounts (id INT PRIMARY KEY, plan {declared})", f"INSERT INTO accounts VALUES {listed}")
    assert [value for page in pages("integer") for value in page["plan"].to_pylist()] == wanted


def test_a_category_is_text_of_any_charset_with_its_bytes_and_never_a_number(route: str, make: Make) -> None:
    make(
        "CREATE TABLE accounts (id INT PRIMARY KEY, n INT, land VARCHAR(9) CHARACTER SET latin1, tier ENUM('a','B'))",
        "SET NAMES utf8mb4",
        "INSERT INTO accounts VALUES (1, 1, 'dé', 'B'), (2, 2, ' DE ', NULL), (3, 3, '', 'a')",
    )
    names = ("land", "tier")
    assert inspect_table(SOURCE, ACCOUNTS, names, (), names)[1] == ()
    (page,) = [page for page, _ in read_pages(SOURCE, ACCOUNTS, names, "integer", (None, 3), categories=names)]
    assert page.select(names).to_pydict() == {"land": ["dé", " DE ", ""], "tier": ["B", None, "a"]}
    (problem,) = inspect_table(SOURCE, ACCOUNTS, ("n",), (), ("n",))[1]
    assert problem.what.startswith("column_type: is int")


def test_a_number_that_names_no_group_is_refused_also_where_a_feature_reads_it(make: Make) -> None:
    make("CREATE TABLE accounts (id INT PRIMARY KEY, plan INT, ratio DOUBLE)")
    assert inspect_table(SOURCE, ACCOUNTS, ("plan",), ("plan",))[1] == ()
    (problem,) = inspect_table(SOURCE, ACCOUNTS, ("ratio",), ("ratio",))[1]
    assert problem.what.startswith("column_type: is double")


@pytest.mark.parametrize(
    "declared",
    ["DECIMAL(39,4)", "TIME", "JSON", "BLOB", "VARCHAR(9)", "ENUM('a')", "SET('a','b')", "POINT", "DATETIME"],
)
def test_a_number_of_a_type_without_an_exact_home_is_refused_by_name(declared: str, make: Make) -> None:
    make(f"CREATE TABLE accounts (id INT PRIMARY KEY, plan {declared})")
    (problem,) = inspect_table(SOURCE, ACCOUNTS, ("plan",))[1]
    assert problem.what.startswith("column_type: is ")
    assert "view" in problem.remedy


@pytest.mark.parametrize("declared", ["DOUBLE", "DECIMAL(20,0)", "FLOAT"])
def test_keys_that_may_have_lost_digits_are_refused(declared: str, make: Make) -> None:
    make(f"CREATE TABLE accounts (id {declared} PRIMARY KEY, plan INT)")
    (problem,) = inspect_table(SOURCE, ACCOUNTS, ("plan",))[1]
    assert problem.what.startswith("id_physical_type")


def test_a_key_without_an_index_is_refused_with_the_statement_that_mends_it(make: Make) -> None:
    make("CREATE TABLE accounts (other INT PRIMARY KEY, id BIGINT, plan INT)")
    (problem,) = inspect_table(SOURCE, ACCOUNTS, ("plan",))[1]
    assert problem.what.startswith("key_not_indexed")
    make(problem.remedy)
    assert inspect_table(SOURCE, ACCOUNTS, ("plan",))[1] == ()


US = 1_000_000
TIMES: dict[str, tuple[str, TimeColumn, list[str], list[int | None]]] = {
    "datetime in a declared zone": (
        "DATETIME(6)", TimeColumn(column="at", zone="Europe/Berlin"), ["'1970-01-01 01:00:00.000001'", "NULL"], [1, None]),
    "datetime far away": (
        "DATETIME(6)", TimeColumn(column="at", zone="UTC"), ["'9999-12-31 23:59:59.999999'", "'0102-01-01'"],
        [253_402_300_799_999_999, int(datetime(102, 1, 1, tzinfo=UTC).timestamp()) * US]),
    "date": ("DATE", TimeColumn(column="at", zone="UTC"), ["'1970-01-02'", "NULL"], [86_400 * US, None]),
    "timestamp": ("TIMESTAMP(6) NULL", TimeColumn(column="at"), ["FROM_UNIXTIME(1.5)", "NULL"], [1_500_000, None]),
    "integers in seconds": ("INT UNSIGNED", TimeColumn(column="at", unit="s"), ["4294967295", "NULL"], [4294967295 * US, None]),
    "text with zones": ("VARCHAR(40)", TimeColumn(column="at"), ["'1970-01-01T01:00:00+01:00'", "NULL"], [0, None]),
}  # fmt: skip


def feature_set(time: TimeColumn | None) -> FeatureSet:
    accounts = ACCOUNTS.model_dump() | ({"created_at": time} if time else {})
    return FeatureSet.model_validate(
        {
            "feature_set": "x",
            "version": 1,
            "account_id": "integer",
            "accounts": accounts,
            "features": {"plan": {"column": "plan"}},
        }
    )


def freeze(store: Path, wanted: FeatureSet) -> pa.Table:
    tables = []
    for low, high in key_ranges(SOURCE, wanted.accounts, "integer"):
        work = FreezeSql(
            table="accounts", feature_set=Reference(path="", sha256=""), url="live", sql_table="accounts", low=low, high=high,
            opened_for="r",
        )  # fmt: skip
        with Drafts(store, "freeze/x") as drafts:
            freeze_sql(work, drafts, wanted, Brake(live_source(work, Gentle())))
            tables += [pq.read_table(store / output.path) for output in drafts.publish() if output.role == "snapshot"]
    return pa.concat_tables(tables)


@pytest.mark.parametrize("case", list(TIMES))
def test_times_are_exact_in_utc_by_either_driver(case: str, route: str, make: Make, tmp_path: Path) -> None:
    declared, time, written, wanted = TIMES[case]
    listed = ", ".join(f"({n}, 1, {value})" for n, value in enumerate(written))
    make(f"CREATE TABLE accounts (id INT PRIMARY KEY, plan INT, at {declared})", f"INSERT INTO accounts VALUES {listed}")
    assert inspect_table(SOURCE, feature_set(time).accounts, ("plan",))[1] == ()
    assert freeze(tmp_path, feature_set(time))["created_at"].cast(pa.int64()).to_pylist() == wanted


def test_a_history_comes_whole_however_it_is_cut(route: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, n_rows in ((mysql, "FIRST_PAGE_ROWS", 2), (mysql, "MOST_PAGE_ROWS", 2), (mysql_ranges, "RANGE_ROWS", 4)):
        monkeypatch.setattr(module, name, n_rows)
    days = [("2026-01-04", None, 4), ("2026-01-01", "2026-01-02", 1), ("2026-01-02", "2026-01-03", 2)]
    told = [(key, since, "NULL" if until is None else repr(until), n) for key in (7, 3, 5) for since, until, n in days]
    rows = ", ".join(f"({key}, '{since}', {until}, {key * n})" for key, since, until, n in told)
    make(
        "CREATE TABLE accounts (id INT, since DATE, until DATE, plan INT, PRIMARY KEY (id, since))",
        f"INSERT INTO accounts VALUES {rows}",
    )
    history = {name: TimeColumn(column=column, zone="UTC") for name, column in (("valid_from", "since"), ("valid_to", "until"))}
    declared = AccountsTable(table="accounts", key="id", history=History(**history))
    assert inspect_table(SOURCE, declared, ("plan",))[1] == ()
    table = freeze(tmp_path, feature_set(None).model_copy(update={"accounts": declared}))
    assert table["plan"].to_pylist() == [3, 6, 12, 5, 10, 20, 7, 14, 28]
    assert table["valid_to"].is_null().to_pylist() == [False, False, True] * 3


def test_a_zero_date_is_told_and_never_taken_for_null(route: str, make: Make, tmp_path: Path) -> None:
    make(
        "CREATE TABLE accounts (id INT PRIMARY KEY, plan INT, at DATETIME)",
        "INSERT INTO accounts VALUES (1, 1, '0000-00-00 00:00:00')",
    )
    with pytest.raises(PartitionError, match="zero date"):
        freeze(tmp_path, feature_set(TimeColumn(column="at", zone="UTC")))


def test_every_account_that_stays_is_read_once_while_others_come_and_go(
    route: str, make: Make, mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 2_000)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 50)
    monkeypatch.setattr(mysql, "MOST_PAGE_ROWS", 50)
    make(
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, plan INT)",
        "INSERT INTO accounts SELECT seq * 10, 1 FROM seq_1_to_6000",
    )
    database = os.environ["BATCHSCORE_URL_LIVE"].rpartition("/")[2]
    over, n_writes = threading.Event(), [0]

    def batch(n: int) -> Iterator[str]:
        come = ", ".join(f"({(n * 7919 + k * 131) % 60_000 * 10 + 5}, 2)" for k in range(20))
        go = ", ".join(str((n * 104_729 + k * 17) % 60_000 * 10 + 5) for k in range(20))
        yield f"INSERT INTO accounts VALUES {come} ON DUPLICATE KEY UPDATE plan = 3"
        yield f"DELETE FROM accounts WHERE id IN ({go})"
        yield f"UPDATE accounts SET plan = plan + 1 WHERE id = {n % 6_000 * 10 + 10}"

    def write() -> None:
        while not over.is_set():
            batches = range(n_writes[0], n_writes[0] + 10)
            mysql_server.execute(*(said for n in batches for said in batch(n)), database=database)
            n_writes[0] += 10 * 21  # rows; not those that may have been there to delete

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not n_writes[0]:
            time.sleep(0.01)
        began, n_before = time.monotonic(), n_writes[0]
        read = keys("integer")
        rate = (n_writes[0] - n_before) / (time.monotonic() - began)
    finally:
        over.set()
        writer.join()
    print(f"{route}: {rate:,.0f} rows written each second of the extraction")  # noqa: T201 (a figure of GUARANTEES.md)
    assert rate >= WRITES_S
    assert len(read) == len(set(read))
    assert [key for key in read if key % 10 == 0] == [number * 10 for number in range(1, 6_001)]


def test_a_read_past_its_deadline_is_given_up_with_its_process(make: Make) -> None:
    pytest.importorskip("connectorx")
    with FastReader("live", deadline_s=1.5) as fast:
        with pytest.raises(AttemptFailed, match="given up"):
            fast.read("SELECT SLEEP(60) AS c0")
        answer = fast.read("SELECT 1 AS c0")
    assert answer is not None
    assert answer["c0"].to_pylist() == [1]


@pytest.mark.parametrize("failing", ["query", "url"])
def test_what_the_fast_driver_cannot_read_leaves_no_word_of_the_url(
    failing: str, make: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("connectorx")
    if failing == "url":
        monkeypatch.setenv("BATCHSCORE_URL_LIVE", f"mysql://nobody:{PASSWORD}@127.0.0.1:1/none")
    with FastReader("live", deadline_s=3) as fast, contextlib.suppress(AttemptFailed):  # it goes on trying to connect
        assert fast.read("SELECT nothing FROM nowhere") is None
    assert PASSWORD not in "".join(capfd.readouterr())


def test_an_answer_with_bools_is_not_believed_however_python_is_told_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions of connectorx took any TINYINT for a bool: 2 became true."""
    (tmp_path / "connectorx.py").write_text(
        "import pyarrow\ndef read_sql(url, query, **_): return pyarrow.table({'c0': [True] if query == 'bools' else [2]})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", "mysql://nobody@127.0.0.1/x")
    with FastReader("live") as fast:
        assert fast.read("bools") is None
        assert (answer := fast.read("integers")) is not None
    assert answer["c0"].to_pylist() == [2]


def test_no_error_of_a_source_holds_its_password(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from batchscore.database import transaction

    monkeypatch.setattr(transaction, "REDO_S", 0.5)
    for url in (
        f"mysql://admin:{PASSWORD}@127.0.0.1:1/none",
        f"mysql://nobody:{PASSWORD}@127.0.0.1/x",
        f"mysql://{PASSWORD}:x@/",
    ):
        monkeypatch.setenv("BATCHSCORE_URL_LIVE", url)
        with pytest.raises(BatchscoreError) as failure:
            inspect_table(SOURCE, ACCOUNTS, ("plan",))
        assert PASSWORD not in str(failure.value)
        assert failure.value.__cause__ is None
