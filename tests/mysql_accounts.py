"""The accounts of a small world in a table of MySQL."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.mysql_server import MySqlServer
from tests.small_world import SmallWorld


def load_accounts(world: SmallWorld, server: MySqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's accounts as a table, keys in a collation that is not their order of bytes."""
    url = server.make_database()
    database = url.rpartition("/")[2]
    reader = server.make_account(database, "source", [f"GRANT SELECT ON {database}.* TO source"])
    monkeypatch.setenv("BATCHSCORE_URL_CRM", reader)
    rows = pq.read_table(world.folder / "accounts").to_pylist()
    key = "BIGINT UNSIGNED" if world.kind == "integer" else "VARCHAR(64) COLLATE utf8mb4_unicode_ci"
    listed = ", ".join(
        f"(_utf8mb4 X'{str(row['id']).encode().hex()}', '{row['created_at']:%Y-%m-%d %H:%M:%S}', {row['plan']})" for row in rows
    )
    server.execute(
        "SET time_zone = '+00:00'",
        f"CREATE TABLE accounts (id {key} PRIMARY KEY, created_at TIMESTAMP NOT NULL DEFAULT '2000-01-01', plan INT NOT NULL)",
        f"INSERT INTO accounts VALUES {listed}",
        database=url.rpartition("/")[2],
    )
