"""An upgrade that is cut between two statements goes on when it is asked for again, and ends as one that nobody cut.

A cut of all statements here; after each of them in `make chaos` (BATCHSCORE_EVERY_CUT).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Final

import pytest
import sqlalchemy as sa
from alembic import command

from batchscore.database import open_engine
from batchscore.errors import Refused, TryAgain
from batchscore.settings import database_url
from batchscore.store.migrate import alembic_config, upgrade_database, upgrade_script
from batchscore.store.schema import REVISIONS
from tests.commands import succeeded
from tests.contract.store.upgrades_cut import Counter, watched
from tests.mysql_server import MySqlServer, PrivateServer

EVERY_CUT: Final = bool(os.environ.get("BATCHSCORE_EVERY_CUT"))
KILLS: Final = 20
POPULATED: Final = "0003"
MOST_MADE_ANEW: Final = 16  # views and triggers of one revision, which are made anew whatever is there
# What a store of that version held: runs, attempts whose order is told by a counter, flags of which one gave way.
ROWS: Final = (
    *(
        "INSERT INTO runs (run_id, plan_digest, generation, name, plan, state, why, epoch, lease_owner, lease_until, created_at, "
        f"updated_at, released_at) VALUES ('r-{n}', 'd', 1, 'weekly', '{{}}', 'finished', '', 1, 'somebody', 0, 1, 1, {n})"
        for n in (1, 2)
    ),
    *(
        "INSERT INTO attempts (run_id, stage, number, outcome, reason, message, isolated, epoch, ended_at) "
        f"VALUES ('r-1', 'score', {number}, 'failed', 'attempt_failed', 'of {at}', 0, 1, {at})"
        for at, number in enumerate((0, 1, 0, 0))
    ),
    *(
        "INSERT INTO flags (queue, account_id, run_id, as_of, `rank`, score, margin, reasons, bundle_digest, state, open_marker, "
        f"opened_at) VALUES ('abuse', {account}, 'r-{run}', 1, 1, 0.5, 0, '[]', 'b', '{state}', {marker}, 1)"
        for account, run, state, marker in ((1, 1, "open", 1), (2, 1, "open", 1), (1, 2, "overtaken", "NULL"))
    ),
)

pytestmark = [pytest.mark.mysql, pytest.mark.timeout(1_800 if EVERY_CUT else 120)]


class World:
    """One server, and databases on it that are upgraded by the name ``review``."""

    def __init__(self, server: MySqlServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self._folder, self._monkeypatch = server, folder, monkeypatch
        self.database = ""

    def new(self) -> None:
        """Another, empty database."""
        url = self.server.make_database()
        self.database = url.rpartition("/")[2]
        self._monkeypatch.setenv("BATCHSCORE_URL_REVIEW", url)

    def upgrade(self) -> None:
        upgrade_database(self._folder, "review", "integer")

    def upgrade_and_cut(self, after: int, *, only_ddl: bool = False) -> bool:
        """Whether the upgrade was cut."""
        counter = Counter(self._kill, after, only_ddl=only_ddl)
        with watched(counter):
            try:
                self.upgrade()
            except TryAgain as error:
                assert error.reason == "database_away", error
                assert "batchscore db upgrade SPEC again" in str(error)
                return True
        return counter.n >= after

    def _kill(self, connection: sa.Connection) -> None:
        held = connection.connection.driver_connection
        assert held is not None
        self.server.execute(f"KILL {held.thread_id()}")

    def populate(self) -> None:
        """Rows as a store of an earlier release held them."""
        with open_engine(database_url("review")).connect() as connection:
            config = alembic_config("integer")
            config.attributes["connection"] = connection
            command.upgrade(config, POPULATED)
            connection.commit()
        self.server.execute(*ROWS, database=self.database)

    def tables(self) -> list[str]:
        """All tables, views and triggers, as the statements that make them."""
        found = []
        for name, kind in self.server.execute("SHOW FULL TABLES", database=self.database):
            what = "VIEW" if kind == "VIEW" else "TABLE"
            found.append(str(self.server.execute(f"SHOW CREATE {what} `{name}`", database=self.database)[0][:2]))
        found += [str(row[:5]) for row in self.server.execute("SHOW TRIGGERS", database=self.database)]
        return [said.replace(self.database, "DATABASE") for said in found]

    def rows(self) -> dict[str, list[str]]:
        """All rows of all tables."""
        names = [row[0] for row in self.server.execute("SHOW FULL TABLES", database=self.database) if row[1] != "VIEW"]
        return {name: sorted(map(str, self.server.execute(f"SELECT * FROM `{name}`", database=self.database))) for name in names}

    def run_by_hand(self, script: str) -> None:
        """As a DBA runs it."""
        url = sa.make_url(database_url("review"))
        client = ["mariadb", f"--host={url.host}", f"--port={url.port}", f"--user={url.username}", str(url.database)]
        environment = {**os.environ, "MYSQL_PWD": str(url.password or "")}
        subprocess.run(client, input=script, env=environment, text=True, check=True)


@pytest.fixture
def world(mysql_server: MySqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(mysql_server, tmp_path / "store", monkeypatch)


def test_an_upgrade_that_is_cut_after_any_statement_goes_on(world: World) -> None:
    world.new()
    counter = Counter(lambda _: None, None)
    with watched(counter):
        world.upgrade()
    clean, rows = world.tables(), world.rows()
    assert counter.n > 80
    for n in range(1, counter.n + 1, 1 if EVERY_CUT else 24):
        world.new()
        assert world.upgrade_and_cut(n), n
        world.upgrade()
        assert (world.tables(), world.rows()) == (clean, rows), n


def test_rows_of_an_earlier_release_outlive_cuts(world: World) -> None:
    world.new()
    world.populate()
    counter = Counter(lambda _: None, None)
    with watched(counter):
        world.upgrade()
    clean, rows = world.tables(), world.rows()
    assert {name: len(found) for name, found in rows.items() if name in {"attempts", "flags", "queues", "events"}} == {
        "attempts": 4,
        "flags": 3,
        "queues": 1,
        "events": 2,
    }
    world.new()
    world.populate()
    for after in cycle((1, 4, MOST_MADE_ANEW + 1)):  # each time so many more stand
        if not world.upgrade_and_cut(after, only_ddl=True):
            break
    assert (world.tables(), world.rows()) == (clean, rows)
    for n in range(1, counter.n + 1) if EVERY_CUT else ():
        world.new()
        world.populate()
        assert world.upgrade_and_cut(n), n
        world.upgrade()
        assert (world.tables(), world.rows()) == (clean, rows), n


@pytest.mark.skipif(not EVERY_CUT, reason="twenty kills and starts of a server take minutes: make chaos")
def test_a_server_that_is_killed_inside_any_statement_is_upgraded_once_it_is_back(
    private_server: PrivateServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(private_server, tmp_path / "store", monkeypatch)
    world.new()
    world.populate()
    began = time.monotonic()
    world.upgrade()
    took_s = time.monotonic() - began
    clean, rows = world.tables(), world.rows()
    random, n_cuts = Random(1), 0
    for _ in range(KILLS):
        world.new()
        world.populate()
        killer = threading.Timer(random.uniform(0, took_s), private_server.kill)
        killer.start()
        try:
            world.upgrade()
        except TryAgain:
            n_cuts += 1
        killer.join()
        private_server.start()
        world.upgrade()
        assert (world.tables(), world.rows()) == (clean, rows)
    assert n_cuts > KILLS // 2


def test_a_script_that_is_cut_is_run_again_whole(world: World) -> None:
    world.new()
    script = upgrade_script("review", "integer")
    world.run_by_hand(script)
    clean, rows = world.tables(), world.rows()
    pieces = script.split("\n\n")
    for n in range(1, len(pieces)) if EVERY_CUT else (len(pieces) // 2,):
        world.new()
        world.run_by_hand("\n\n".join(pieces[:n]))
        world.run_by_hand(script)
        assert (world.tables(), world.rows()) == (clean, rows), n
    world.upgrade()
    assert (world.tables(), world.rows()) == (clean, rows)
    assert "already" in upgrade_script("review", "integer")


def test_a_script_over_a_store_at_work_changes_none_of_its_rows(world: World) -> None:
    world.new()
    script = upgrade_script("review", "integer")
    world.populate()
    world.upgrade()
    world.server.execute("UPDATE flags SET released_as = 'unmoved' WHERE state = 'overtaken'", database=world.database)
    before = world.tables(), world.rows()
    world.run_by_hand(script)
    assert (world.tables(), world.rows()) == before


def test_an_upgrade_and_a_script_go_on_from_each_other(world: World) -> None:
    world.new()
    world.upgrade()
    clean, rows = world.tables(), world.rows()
    world.new()
    assert world.upgrade_and_cut(45)
    world.run_by_hand(upgrade_script("review", "integer"))
    assert (world.tables(), world.rows()) == (clean, rows)


def test_a_swap_that_an_earlier_release_left_half_done_is_ended(world: World) -> None:
    world.new()
    world.populate()
    world.upgrade()
    clean, rows = world.tables(), world.rows()
    world.new()
    world.populate()
    assert world.upgrade_and_cut(4)  # the new attempts are made; next they are filled
    insert = next(row for row in _statements("0004") if row.startswith("INSERT INTO numbered_attempts"))
    world.server.execute(insert, "DROP TABLE attempts", database=world.database)
    world.upgrade()
    assert (world.tables(), world.rows()) == (clean, rows)


def test_a_cut_upgrade_of_the_other_kind_of_ids_is_refused(world: World, tmp_path: Path) -> None:
    world.new()
    assert world.upgrade_and_cut(6)
    before = world.tables()
    with pytest.raises(Refused, match="id_kind"):
        upgrade_database(tmp_path / "store", "review", "string")
    with pytest.raises(Refused, match="id_kind"):
        upgrade_script("review", "string")
    assert world.tables() == before


def test_a_table_that_is_in_use_is_waited_for_briefly_and_lets_others_past(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.new()
    world.populate()
    url = database_url("review")
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", f"{url}?read_timeout=2")
    with open_engine(url).begin() as driver:
        driver.exec_driver_sql("SELECT * FROM runs").all()
        with pytest.raises(TryAgain, match=r"store_busy[\s\S]*db upgrade SPEC again"):
            world.upgrade()
    world.upgrade()


def test_a_store_whose_version_was_deleted_is_not_begun_again(world: World) -> None:
    world.new()
    world.populate()
    world.upgrade()
    before = world.rows()
    world.server.execute("DELETE FROM alembic_version", database=world.database)
    with pytest.raises(Refused, match="store_schema"):
        world.upgrade()
    with pytest.raises(Refused, match="store_schema"):
        upgrade_script("review", "integer")
    assert {**world.rows(), "alembic_version": before["alembic_version"]} == before


@pytest.mark.parametrize(
    "theirs",
    [
        ("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)", "CREATE TABLE runs (id INT)"),
        (
            "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",
            "CREATE TABLE installation (id_kind VARCHAR(16) PRIMARY KEY)",
            "CREATE TABLE runs (id INT)",
        ),
        (
            "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)",
            "CREATE TABLE installation (id INT)",
        ),
    ],
)
def test_tables_of_somebody_else_are_not_taken_for_a_cut_upgrade(world: World, theirs: tuple[str, ...]) -> None:
    world.new()
    world.server.execute(*theirs, database=world.database)
    with pytest.raises(Refused, match="store_schema"):
        world.upgrade()


def test_an_upgrade_on_sqlite_that_is_killed_leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    every = 1 if EVERY_CUT else 24
    command_line = [sys.executable, "-m", "tests.contract.store.upgrades_cut", str(tmp_path), str(every)]
    n_kills, n_same = map(int, succeeded(*command_line).split())
    assert n_kills == n_same
    assert n_kills > 80 // every


def _statements(revision: str) -> list[str]:
    """The statements of one revision on a database that holds the one before, as they are executed."""
    from io import StringIO

    written = StringIO()
    before = REVISIONS[REVISIONS.index(revision) - 1]
    command.upgrade(alembic_config("integer", written), f"{before}:{revision}", sql=True)
    quoted = [line for line in written.getvalue().splitlines() if "'INSERT" in line]
    return [line[line.index("'INSERT") + 1 : line.rindex("'")].replace("''", "'") for line in quoted]
