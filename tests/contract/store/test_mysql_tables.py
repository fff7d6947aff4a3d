"""What the tables are on MySQL: every migration makes them so that nothing is folded, cut or rounded."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from batchscore.database import open_engine
from batchscore.errors import Refused
from batchscore.settings import database_url
from batchscore.store import open_reader, open_store, tables
from batchscore.store.migrate import upgrade_database, upgrade_script
from batchscore.store.place import require_place
from tests.conftest import MakeMySqlStore
from tests.mysql_server import MySqlServer

pytestmark = pytest.mark.mysql


def columns(kind: str = "%") -> dict[tuple[str, str], str]:
    query = sa.text(
        "SELECT table_name, column_name, column_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND data_type LIKE :kind AND table_name <> 'alembic_version' "
        "AND table_name NOT IN (SELECT table_name FROM information_schema.views WHERE table_schema = DATABASE())"
    )
    with open_engine(database_url("review")).connect() as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(query, {"kind": kind})}


def test_every_table_is_innodb_and_compares_text_by_its_bytes(mysql_store: MakeMySqlStore, tmp_path: Path) -> None:
    mysql_store(tmp_path)
    query = sa.text(
        "SELECT table_name, engine, table_collation FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version'"
    )
    with open_engine(database_url("review")).connect() as connection:
        found = {row[0]: (row[1], row[2]) for row in connection.execute(query)}
    assert set(found) == {*tables.metadata.tables, *tables.WITH_IDS}
    assert set(found.values()) == {("InnoDB", "utf8mb4_bin")}


def test_numbers_are_double_or_whole_and_long_text_has_room(mysql_store: MakeMySqlStore, tmp_path: Path) -> None:
    mysql_store(tmp_path)
    assert columns("float") == {}
    assert columns("decimal") == {}
    assert columns("text") == {}, "TEXT ends at 64 KB"
    assert {columns("double")[("flags", name)] for name in ("score", "margin")} == {"double"}


@pytest.mark.parametrize(("kind", "held"), [("integer", "bigint(20) unsigned"), ("string", "varbinary(255)")])
def test_account_ids_are_held_exactly(mysql_store: MakeMySqlStore, tmp_path: Path, kind: str, held: str) -> None:
    mysql_store(tmp_path, kind)
    assert columns()[("flags", "account_id")].replace("bigint unsigned", "bigint(20) unsigned") == held


def test_no_table_counts_its_own_keys(mysql_store: MakeMySqlStore, tmp_path: Path) -> None:
    mysql_store(tmp_path)
    query = sa.text("SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND extra LIKE '%auto%'")
    with open_engine(database_url("review")).connect() as connection:
        assert connection.execute(query).scalar_one() == 0


def test_tables_have_the_columns_that_queries_use(mysql_store: MakeMySqlStore, tmp_path: Path) -> None:
    mysql_store(tmp_path)
    wanted = {(table.name, column.name) for table in tables.metadata.tables.values() for column in table.c}
    made = (tables.flags_table, tables.claims_table, tables.dispositions_table, tables.events_table)
    wanted |= {(table.name, column.name) for make in made for table in [make("integer")] for column in table.c}
    assert set(columns()) == wanted


def test_the_script_for_a_dba_makes_the_same_tables(
    mysql_store: MakeMySqlStore, mysql_server: MySqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_store(tmp_path)
    made = columns()
    by_hand = mysql_server.make_database()
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", by_hand)
    script = upgrade_script("review", "integer")
    assert columns() == {}, "a script changes nothing"
    url = sa.make_url(by_hand)
    client = ["mariadb", f"--host={url.host}", f"--port={url.port}", f"--user={url.username}", str(url.database)]
    environment = {**os.environ, "MYSQL_PWD": str(url.password or "")}
    subprocess.run(client, input=script, env=environment, text=True, check=True)  # as a DBA does
    assert columns() == made
    upgrade_database(tmp_path, "review", "integer")
    open_store(tmp_path, "integer")


def test_upgrading_twice_changes_nothing(mysql_store: MakeMySqlStore, tmp_path: Path) -> None:
    mysql_store(tmp_path)
    assert upgrade_database(tmp_path, "review", "integer") == upgrade_database(tmp_path, "review", "integer")
    with pytest.raises(Refused, match="id_kind"):
        upgrade_database(tmp_path, "review", "string")


def test_tables_of_somebody_else_are_left_alone(
    mysql_server: MySqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = mysql_server.make_database()
    mysql_server.execute("CREATE TABLE runs (id INT)", database=url.rpartition("/")[2])
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", url)
    with pytest.raises(Refused, match=r"store_schema.*runs"):
        upgrade_database(tmp_path / "store", "review", "integer")
    assert not (tmp_path / "store").exists()


def test_a_driver_makes_no_tables_on_mysql(mysql_server: MySqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "database.name").write_text("review\n")
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", mysql_server.make_database())
    for opened in (lambda: open_store(tmp_path, "integer"), lambda: open_reader(tmp_path)):
        with pytest.raises(Refused, match=r"store_missing[\s\S]*db upgrade"):
            opened()
    assert columns() == {}


def test_a_spec_that_looks_for_its_runs_elsewhere_is_refused(mysql_store: MakeMySqlStore, tmp_path: Path) -> None:
    on_mysql, on_sqlite, new = mysql_store(tmp_path / "m"), tmp_path / "s", tmp_path / "n"
    open_store(on_sqlite, "integer")
    for folder, database in ((on_mysql, "review"), (on_sqlite, None), (new, None)):
        require_place(folder, database)
    for folder, database in ((on_mysql, None), (on_mysql, "other"), (on_sqlite, "review"), (new, "review")):
        with pytest.raises(Refused):
            require_place(folder, database)
    assert not new.exists()
