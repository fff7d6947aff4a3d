"""A MySQL table is paged by whatever key it has: every row once, in balanced ranges, and no page reads more than its rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise

import pyarrow as pa
import pytest

from batchscore.database import open_engine
from batchscore.errors import PartitionError
from batchscore.features.tables import AccountsTable
from batchscore.keys import IdKind
from batchscore.sources import mysql, mysql_ranges
from batchscore.sources.mysql import PageReader
from batchscore.sources.sql import inspect_table, key_ranges, read_pages
from batchscore.spec import SqlSource
from tests.mysql_server import MySqlServer

pytestmark = pytest.mark.mysql
ACCOUNTS = AccountsTable(table="accounts", key="id", immutable=("plan",))
Make = Callable[..., None]


@pytest.fixture(scope="module")
def url(mysql_server: MySqlServer) -> str:
    """One database for all tests, so that the process of the fast reader is started once."""
    url = mysql_server.make_database()
    database = url.rpartition("/")[2]
    return mysql_server.make_account(database, "source", [f"GRANT SELECT ON {database}.* TO source"])


@pytest.fixture
def make(mysql_server: MySqlServer, url: str, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", url)
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 500)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 130)
    monkeypatch.setattr(mysql, "MOST_PAGE_ROWS", 130)

    def made(*statements: str) -> None:
        mysql_server.execute("DROP TABLE IF EXISTS accounts", *statements, database=url.rpartition("/")[2])

    return made


def source(*key: str) -> SqlSource:
    return SqlSource(url="live", table="accounts", key=key)


def counts_and_plans(live: SqlSource) -> tuple[list[int], list[int]]:
    """How many rows each range gave, and all values of the column plan, which tells rows apart."""
    counts, plans = [], []
    for bounds in key_ranges(live, ACCOUNTS, "integer"):
        pages: list[pa.Table] = [page for page, _ in read_pages(live, ACCOUNTS, ("plan",), "integer", bounds)]
        counts.append(sum(map(len, pages)))
        plans += [value for page in pages for value in page["plan"].to_pylist()]
    return counts, plans


# 1,700 rows each, plan = 1 … 1700: a few values hold nearly all rows, or the values lie far apart.
DASHED = "INSERT(INSERT(INSERT(INSERT(MD5(seq), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
FILL = "INSERT INTO accounts SELECT {key}, seq * 3, seq FROM seq_1_to_1700"
KEYS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "a tenant that holds nearly all": (
        "a VARCHAR(20) COLLATE utf8mb4_general_ci, b BIGINT UNSIGNED, PRIMARY KEY (a, b)",
        "IF(seq % 50, 'Big', CONCAT('x\\'y', seq)), 18446744073709551615 - seq * 1000003", ("a", "b")),
    "three columns": (
        "a TINYINT, b DATE, c VARBINARY(8), PRIMARY KEY (a, b, c)",
        "CAST(seq % 3 AS SIGNED) - 1, '2026-01-01' + INTERVAL (seq % 7) DAY, UNHEX(LPAD(HEX(seq), 8, 'F0'))", ("a", "b", "c")),
    "uuid as text": ("a CHAR(36) CHARACTER SET ascii, PRIMARY KEY (a)", DASHED, ("a",)),
    "uuid of MariaDB": ("a UUID, PRIMARY KEY (a)", f"INSERT(INSERT({DASHED}, 15, 1, '4'), 20, 1, '8')", ("a",)),
    "uuid in bytes": ("a BINARY(16), PRIMARY KEY (a)", "UNHEX(MD5(seq))", ("a",)),
    "bytes that are no text": ("a VARBINARY(9), PRIMARY KEY (a)", "UNHEX(CONCAT('FF00', LPAD(HEX(seq), 4, '0')))", ("a",)),
    "decimal with a scale": ("a DECIMAL(30,6), PRIMARY KEY (a)", "POW(seq, 5) * IF(seq % 2, -0.000001, 1)", ("a",)),
    "a time and an id": ("a DATETIME(6), b INT, PRIMARY KEY (a, b)", "'2026-01-01' + INTERVAL FLOOR(seq / 400) SECOND, seq",
                         ("a", "b")),
    "a timestamp that many rows share": ("a TIMESTAMP(3) NOT NULL, KEY (a)", "'2026-06-01' + INTERVAL seq DIV 50 SECOND", ("a",)),
    "several columns, in an index that is not unique": (
        "a VARCHAR(9) NOT NULL, b INT NOT NULL, KEY (a, b)", "IF(seq % 2, 'ß', 'SS'), seq DIV 50", ("a", "b")),
}  # fmt: skip


@pytest.mark.parametrize("case", list(KEYS))
def test_every_row_comes_once_in_balanced_ranges(case: str, route: str, make: Make) -> None:
    columns, values, key = KEYS[case]
    make(f"CREATE TABLE accounts ({columns}, id BIGINT UNSIGNED, plan INT)", FILL.format(key=values))
    live = source(*key)
    assert inspect_table(live, ACCOUNTS, ("plan",), (), (), "integer")[1] == ()
    counts, plans = counts_and_plans(live)
    assert sorted(plans) == list(range(1, 1701))
    assert len(counts) == (4 if "PRIMARY" in columns else 3), "of a unique key a multiple of the two that are read at a time"
    assert max(counts) <= 2 * min(counts)


def test_columns_with_names_that_a_query_might_give_its_own_are_taken_for_themselves(route: str, make: Make) -> None:
    make(
        "CREATE TABLE accounts (c1 INT PRIMARY KEY, c0 TINYINT, c2 INT, id BIGINT UNSIGNED, plan INT)",
        "INSERT INTO accounts SELECT seq, 0, -seq, seq, 1701 - seq FROM seq_1_to_1700",
    )
    assert counts_and_plans(source("c1"))[1] == list(range(1700, 0, -1)), "by the table's c1"


@pytest.mark.parametrize(("kind", "most_ranges"), [("integer", 6), ("string", 3)])
def test_ranges_are_whole_and_balanced_for_any_number_of_rows(
    kind: IdKind, most_ranges: int, make: Make, url: str, mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cut in two places at once, and must meet without a gap, a row twice, or a range of nothing."""
    n_range = 16  # two rows at a time
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", n_range)
    make(f"CREATE TABLE accounts (id {'BIGINT UNSIGNED' if kind == 'integer' else 'CHAR(9)'} PRIMARY KEY, plan INT)")
    keys: list[int | str] = []
    for n_rows in range(1, most_ranges * n_range):
        keys.append(n_rows * n_rows * 7 if kind == "integer" else f"k{n_rows:08}")
        mysql_server.execute(f"INSERT INTO accounts VALUES ('{keys[-1]}', {n_rows})", database=url.rpartition("/")[2])
        ranges = key_ranges(source(), ACCOUNTS, kind)
        assert all(one[1] == next_one[0] for one, next_one in pairwise(ranges))
        assert (ranges[0][0], ranges[-1][1]) == (None, keys[-1])
        ends = [keys.index(high) + 1 for _, high in ranges if not isinstance(high, tuple) and high is not None]
        counts = [after - before for before, after in pairwise([0, *ends])]
        assert sum(counts) == n_rows
        assert max(counts) <= 2 * min(counts) or len(counts) == 1, (n_rows, counts)
        assert max(counts) < 2 * n_range


@pytest.mark.parametrize("case", ["a tenant that holds nearly all", "three columns", "uuid in bytes"])
def test_the_server_reads_no_more_rows_than_it_gives(case: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, values, key = KEYS[case]
    make(f"CREATE TABLE accounts ({columns}, id BIGINT UNSIGNED, plan INT)", FILL.format(key=values))
    engine = open_engine(os.environ["BATCHSCORE_URL_LIVE"], read_only=True)
    reader = PageReader(engine, source(*key), {"id": "key", "plan": "number"}, None)
    bounds = key_ranges(source(*key), ACCOUNTS, "integer")

    def read_so_far() -> int:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all()
        return sum(int(row[1]) for row in rows)

    before, n_rows = read_so_far(), sum(len(page) for low, high in bounds if high is not None for page in reader.pages(low, high))
    assert n_rows == 1700
    assert read_so_far() - before < 1700 + 200, "a page and its bounds, no more"
    engine.dispose()


def test_an_account_id_that_is_not_the_key_is_paged_by_only_as_declared(make: Make) -> None:
    make("CREATE TABLE accounts (a INT, b INT, id BIGINT, plan INT, PRIMARY KEY (a, b))")
    (problem,) = inspect_table(source(), ACCOUNTS, ("plan",))[1]
    assert problem.what.startswith("key_not_indexed")
    assert "key: [a, b]" in problem.what
    assert inspect_table(source("a", "b"), ACCOUNTS, ("plan",))[1] == ()


@pytest.mark.parametrize(
    ("columns", "key", "said"),
    [
        ("a INT, b INT", ("a", "b"), "key_not_indexed: may be null"),
        ("a INT NOT NULL, b INT NOT NULL", ("a", "b"), "key_not_indexed: no index"),
        ("a TEXT NOT NULL, KEY (a(5))", ("a",), "key_not_indexed: no index"),
        ("a DOUBLE PRIMARY KEY", ("a",), "column_type: is double"),
        ("a ENUM('b','a') PRIMARY KEY", ("a",), "column_type: is enum"),
        ("a INT PRIMARY KEY", ("z",), "column_missing"),
    ],
)
def test_a_key_that_orders_nothing_is_refused(columns: str, key: tuple[str, ...], said: str, make: Make) -> None:
    make(f"CREATE TABLE accounts ({columns}, id BIGINT, plan INT)")
    problems = inspect_table(source(*key), ACCOUNTS, ("plan",))[1]
    assert problems[0].what.startswith(said)


@pytest.mark.parametrize(
    ("declared", "cast", "written", "wanted"),
    [
        ("BINARY(16)", "uuid", "UNHEX('00112233445566778899AABBCCDDEEFF')", "00112233-4455-6677-8899-aabbccddeeff"),
        ("VARBINARY(9)", "hex", "UNHEX('FF00')", "ff00"),
        ("BIGINT UNSIGNED", "text", "18446744073709551615", str(2**64 - 1)),
        ("CHAR(36)", None, "'00112233-4455-6677-8899-aabbccddeeff'", "00112233-4455-6677-8899-aabbccddeeff"),
        ("UUID", None, "'00112233-4455-6677-8899-aabbccddeeff'", "00112233-4455-6677-8899-aabbccddeeff"),
    ],
)
def test_an_account_id_becomes_text_exactly_as_declared(
    declared: str, cast: str | None, written: str, wanted: str, route: str, make: Make
) -> None:
    make(f"CREATE TABLE accounts (id {declared} PRIMARY KEY, plan INT)", f"INSERT INTO accounts VALUES ({written}, 1)")
    live = SqlSource.model_validate({"url": "live", "table": "accounts", "id_cast": cast})
    assert inspect_table(live, ACCOUNTS, ("plan",), (), (), "string")[1] == ()
    pages = [
        page
        for bounds in key_ranges(live, ACCOUNTS, "string")
        for page, _ in read_pages(live, ACCOUNTS, ("plan",), "string", bounds)
    ]
    assert [key for page in pages for key in page["id"].to_pylist()] == [wanted]


@pytest.mark.parametrize(
    ("declared", "cast", "kind"),
    [("BINARY(8)", "uuid", "string"), ("INT", "hex", "string"), ("CHAR(9)", "text", "string"), ("INT", None, "string"),
     ("CHAR(9)", None, "integer"), ("INT", "text", "integer")],
)  # fmt: skip
def test_ids_of_another_kind_are_refused_when_planning(declared: str, cast: str | None, kind: str, make: Make) -> None:
    make(f"CREATE TABLE accounts (id {declared} PRIMARY KEY, plan INT)")
    live = SqlSource.model_validate({"url": "live", "table": "accounts", "id_cast": cast})
    (problem,) = inspect_table(live, ACCOUNTS, ("plan",), (), (), "integer" if kind == "integer" else "string")[1]
    assert problem.what.startswith("column_type")


def test_a_key_whose_type_changed_since_the_layout_stops_the_partition(make: Make) -> None:
    make("CREATE TABLE accounts (id INT PRIMARY KEY, plan INT)", "INSERT INTO accounts VALUES (1, 1)")
    with pytest.raises(PartitionError, match="changed its type"):
        list(read_pages(source(), ACCOUNTS, ("plan",), "integer", (None, "x")))
