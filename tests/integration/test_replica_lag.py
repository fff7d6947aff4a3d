"""Reading waits for a replica that really lags: a primary and its replica, both MariaDB, and what SHOW REPLICA STATUS says."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymysql
import pytest
import sqlalchemy as sa

from batchscore.attempt import attempt
from batchscore.events import Event, Waiting
from batchscore.executors.inline import InlineExecutor
from batchscore.operations.report import report_of
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.ports import Observer, RunRow
from batchscore.sources import brake
from batchscore.sources.brake import Brake
from batchscore.sources.gentle import Ruling
from batchscore.spec import Gentle, SqlSource
from batchscore.store import open_reader, open_store
from tests.mysql_accounts import load_accounts
from tests.mysql_server import PASSWORD, PROGRAM, PrivateServer
from tests.small_world import SmallWorld, make_small_world

pytestmark = pytest.mark.mysql
WITHIN_S = 20.0  # what replication takes at most on a loaded machine


class Pair:
    """A primary and a replica of all that it has."""

    def __init__(self, primary: PrivateServer, replica: PrivateServer) -> None:
        self.primary, self.replica = primary, replica
        primary.start("--server-id=1", f"--log-bin={primary.folder / 'binlog'}")
        replica.start("--server-id=2")
        replica.execute(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={primary.port}, MASTER_USER='admin', "
            f"MASTER_PASSWORD='{PASSWORD}', MASTER_USE_GTID=slave_pos",
            "START REPLICA",
        )

    def reader(self, role: str, right: str) -> str:
        """The URL of an account on the replica that has one right, over no database."""
        return self.replica.make_account("", role, [f"GRANT {right} ON *.* TO {role}"])

    def behind_s(self) -> float | None:
        """What the replica itself says."""
        with contextlib.closing(_connection(self.replica)) as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute("SHOW REPLICA STATUS")
            seconds: float | None = cursor.fetchall()[0]["Seconds_Behind_Master"]
        return seconds

    def wait_until(self, holds: Callable[[float | None], bool]) -> None:
        until = time.monotonic() + WITHIN_S
        while not holds(self.behind_s()):
            assert time.monotonic() < until, f"the replica is {self.behind_s()} s behind"
            time.sleep(0.05)

    @contextlib.contextmanager
    def lagging(self, database: str) -> Iterator[Callable[[], None]]:
        """The replica has received a write that it cannot make, for a second; the function lets it go on."""
        with contextlib.closing(_connection(self.replica, database)) as holder, holder.cursor() as cursor:
            cursor.execute("LOCK TABLES accounts READ")
            self.primary.execute("UPDATE accounts SET plan = plan + 1", database=database)
            self.wait_until(lambda seconds: seconds is not None and seconds >= 1)

            def let_go() -> None:
                cursor.execute("UNLOCK TABLES")

            yield let_go


def _connection(server: PrivateServer, database: str | None = None) -> pymysql.Connection[pymysql.cursors.Cursor]:
    return pymysql.connect(host=server.host, port=server.port, user="admin", password=PASSWORD, database=database)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    if PROGRAM is None:
        pytest.skip("no MariaDB server program on this machine: make mariadb")
    with tempfile.TemporaryDirectory(prefix="bs-") as name, ThreadPoolExecutor() as both:
        folders = [Path(name) / "p", Path(name) / "r"]
        for folder in folders:
            folder.mkdir()
        primary, replica = both.map(PrivateServer, folders)
        try:
            yield Pair(primary, replica)
        finally:
            primary.kill()
            replica.kill()


@pytest.fixture
def world(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    """Its accounts are on the primary; the replica is asked with the one right that it takes."""
    monkeypatch.setattr(brake, "LOOK_EVERY_S", 0.05)
    world = make_small_world(tmp_path)
    load_accounts(world, pair.primary, monkeypatch)
    pair.wait_until(lambda seconds: seconds == 0)
    return world


def walk(world: SmallWorld, heard: Observer) -> RunRow:
    gentle = "{replica_lag_s: 0.5, replicas: [crm_replica]}"
    sources = f"{{accounts: {{sql: {{url: crm, table: accounts, gentle: {gentle}}}}}, mails: {{parquet: {{path: mails}}}}}}"
    plan = make_plan(world.spec(sources=sources))
    store = open_store(Path(plan.spec.store), world.kind)
    return run(plan, executor=InlineExecutor(attempt), store=store, observer=heard)


def test_a_run_waits_for_a_replica_that_lags_says_so_and_goes_on_once_it_has_caught_up(
    pair: Pair, world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    database = str(sa.make_url(os.environ["BATCHSCORE_URL_CRM"]).database)
    monkeypatch.setenv("BATCHSCORE_URL_CRM_REPLICA", pair.reader("monitor", "REPLICA MONITOR"))
    user = sa.make_url(os.environ["BATCHSCORE_URL_CRM"]).username
    pair.primary.execute(f"GRANT REPLICA MONITOR ON *.* TO '{user}'@'%'")
    with pair.lagging(database) as let_go:

        def heard(event: Event) -> None:
            if isinstance(event, Waiting):
                said.append(event.reason)
                if event.reason:
                    assert open_reader(world.store).runs(limit=1)[0].why == event.reason, "status says it too"
                    let_go()

        row = walk(world, heard)
    assert row.state == "finished"
    assert len(said) == 2
    assert said[0].startswith("a replica is "), said
    assert said[0].endswith(" s behind, the limit is 0.5 s"), said
    assert said[1] == ""
    told = report_of(open_reader(world.store), row.run_id, "here").run
    assert told.held_back_s > 0
    assert told.worst_lag_s is not None
    assert told.worst_lag_s >= 1


def test_a_replica_that_stopped_is_waited_for_and_one_that_was_told_to_lag_is_not(
    pair: Pair, world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHSCORE_URL_CRM_REPLICA", pair.reader("watcher", "REPLICA MONITOR"))
    database = str(sa.make_url(os.environ["BATCHSCORE_URL_CRM"]).database)
    gentle = Gentle(replica_lag_s=0.5, replicas=("crm_replica",))
    monkeypatch.setenv("BATCHSCORE_URL_CRM", pair.primary.url(database))

    def ruling() -> Ruling:
        return Brake(SqlSource(url="crm", table="accounts", gentle=gentle)).ruling()

    assert ruling().move == "go"
    pair.replica.execute("STOP REPLICA SQL_THREAD")
    assert ruling().reason == "a replica does not replicate, the limit is 0.5 s"
    pair.replica.execute("STOP REPLICA", "CHANGE MASTER TO MASTER_DELAY=3600", "START REPLICA")
    pair.primary.execute("UPDATE accounts SET plan = plan + 1", database=database)
    pair.wait_until(lambda seconds: seconds is not None and seconds >= 1)
    assert ruling().move == "go", "an hour late on purpose"
    pair.replica.execute("STOP REPLICA", "CHANGE MASTER TO MASTER_DELAY=0", "START REPLICA")
    pair.wait_until(lambda seconds: seconds == 0)
    assert ruling().move == "go"
