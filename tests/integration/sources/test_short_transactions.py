"""Freeze holds no transaction open on a live server longer than a page takes to read, however long its rows are at work."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from batchscore.features.tables import AccountsTable
from batchscore.settings import database_url
from batchscore.sources import mysql
from batchscore.sources.sql import key_ranges, read_pages
from batchscore.spec import SqlSource
from tests.mysql_server import MySqlServer

pytestmark = pytest.mark.mysql
WITHIN_S = 5.0  # what guarantee 18 says of its transactions; of this table a page takes milliseconds
OPEN = (
    "SELECT COUNT(*) FROM information_schema.innodb_trx AS trx JOIN information_schema.processlist AS theirs "
    "ON theirs.id = trx.trx_mysql_thread_id WHERE theirs.user = '{user}'"
)


@pytest.mark.parametrize("filtered", [False, True])
def test_no_transaction_is_open_while_a_page_is_at_work(
    filtered: bool, route: str, mysql_server: MySqlServer, source_reader: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 300)
    url = mysql_server.make_database()
    monkeypatch.setenv("BATCHSCORE_URL_LIVE", source_reader(url))
    mysql_server.execute(
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, plan INT)",
        "INSERT INTO accounts SELECT seq, seq % 7 FROM seq_1_to_3000",
        database=url.rpartition("/")[2],
    )
    asked = OPEN.format(user=sa.make_url(database_url("live")).username)
    source = SqlSource.model_validate({"url": "live", "table": "accounts", "where": [["plan", "==", 3]] if filtered else ()})
    accounts, n_rows = AccountsTable(table="accounts", key="id", immutable=("plan",)), 0
    for bounds in key_ranges(source, accounts, "integer"):
        for page, _ in read_pages(source, accounts, ("plan",), "integer", bounds):
            n_rows += len(page)
            given_up = time.monotonic() + WITHIN_S
            while mysql_server.execute(asked)[0][0]:  # the next page may be under way, and is read whatever becomes of this one
                assert time.monotonic() < given_up, "a transaction stays open"
                time.sleep(0.02)
    assert n_rows == (429 if filtered else 3_000)
