"""A live source is read gently: on a real server, with its own figures, flags and connections."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pymysql
import pytest
import sqlalchemy as sa
from distributed import Client, LocalCluster

from batchscore.attempt import attempt
from batchscore.dispatch.limits import Limits
from batchscore.errors import HELD, Paused, Refused
from batchscore.events import Event, StageFinished, Waiting
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.inline import InlineExecutor
from batchscore.operations.report import report_of
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.ports import Executor, Observer, RunRow
from batchscore.sources import brake, mysql, mysql_ranges
from batchscore.sources.brake import Brake
from batchscore.spec import Gentle, OfficeHours, SqlSource
from batchscore.store import open_reader, open_store
from tests.fake_attempts import AtTheNth
from tests.mysql_accounts import load_accounts
from tests.mysql_server import PASSWORD, MySqlServer
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

pytestmark = pytest.mark.mysql
NOON = datetime(2026, 1, 14, 12, tzinfo=UTC)


def quiet(event: Event) -> None:
    """Hears nothing."""


class Live:
    """A small world whose accounts are in a table; ``database`` is the test's own."""

    def __init__(self, world: SmallWorld, server: MySqlServer, database: str) -> None:
        self.world, self.server, self.database = world, server, database

    def execute(self, *statements: str) -> None:
        self.server.execute(*statements, database=self.database)

    def walk(
        self, gentle: str = "{}", *, executor: Executor | None = None, heard: Observer = quiet,
        max_wait: timedelta | None = None,
    ) -> RunRow:  # fmt: skip
        sources = f"{{accounts: {{sql: {{url: crm, table: accounts, gentle: {gentle}}}}}, mails: {{parquet: {{path: mails}}}}}}"
        plan = make_plan(self.world.spec(sources=sources))
        return run(
            plan, executor=executor or InlineExecutor(attempt), store=open_store(Path(plan.spec.store), self.world.kind),
            observer=heard, limits=Limits(max_wait=max_wait),
        )  # fmt: skip

    @contextlib.contextmanager
    def busy(self, n_threads: int) -> Iterator[None]:
        """So many statements at work on the server."""
        connections = [
            pymysql.connect(host=self.server.host, port=self.server.port, user=str(admin.username), password=str(admin.password))
            for admin in [sa.make_url(self.server.url(self.database))] * n_threads
        ]
        numbers = []
        for connection in connections:
            with connection.cursor() as cursor:
                cursor.execute("SELECT CONNECTION_ID()")
                numbers += [row[0] for row in cursor.fetchall()]

        def sleep(connection: pymysql.Connection) -> None:
            with contextlib.suppress(pymysql.err.MySQLError), connection.cursor() as cursor:
                cursor.execute("SELECT SLEEP(60)")

        threads = [threading.Thread(target=sleep, args=[connection]) for connection in connections]
        for thread in threads:
            thread.start()
        while int(self.server.execute("SHOW GLOBAL STATUS LIKE 'Threads_running'")[0][1]) <= n_threads:
            time.sleep(0.01)
        try:
            yield
        finally:
            self.server.execute(*(f"KILL {number}" for number in numbers))
            for thread in threads:
                thread.join()


@pytest.fixture
def live(tmp_path: Path, mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch) -> Live:
    """Looked at twenty times a second, and read in several ranges of several pages."""
    monkeypatch.setattr(brake, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 70)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 30)
    monkeypatch.setattr(mysql, "can_read_fast", lambda _url: False)
    world = make_small_world(tmp_path)
    with monkeypatch.context() as during:
        load_accounts(world, mysql_server, during)
        url = os.environ["BATCHSCORE_URL_CRM"]
    monkeypatch.setenv("BATCHSCORE_URL_CRM", url)
    live = Live(world, mysql_server, url.rpartition("/")[2])
    live.execute("CREATE TABLE pause (why VARCHAR(255) NOT NULL)")
    return live


def test_the_brake_sees_what_a_server_and_its_people_say(live: Live, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    hours = OfficeHours.model_validate({"from": "08:00", "to": "18:00", "zone": "UTC", "days": ["wed"]})

    def seen(at: datetime = NOON, **gentle: object) -> str:
        source = SqlSource(url="crm", table="accounts", gentle=Gentle.model_validate(gentle))
        return Brake(source, clock=lambda: at).ruling().cause

    live.execute(f"GRANT REPLICA MONITOR ON *.* TO '{sa.make_url(os.environ['BATCHSCORE_URL_CRM']).username}'@'%'")
    assert seen(pause_file=str(stop), pause_table="pause", replica_lag_s=30) == ""
    stop.touch()
    assert seen(pause_file=str(stop)) == "pause flag"
    live.execute("INSERT INTO pause VALUES ('backup')")
    assert seen(pause_table="pause") == "pause flag"
    assert seen(office_hours=hours) == "office hours"
    assert seen(NOON + timedelta(hours=6), office_hours=hours) == ""
    with live.busy(3):
        assert seen(threads_running=2, critical_threads_running=50) == "load"
        assert seen(threads_running=1, critical_threads_running=2) == "critical load"
    assert seen(threads_running=2) == ""
    live.execute("CHANGE MASTER 'gone' TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='nobody'")
    try:
        assert seen(replica_lag_s=30) == "replica lag", "it does not replicate"
    finally:
        live.execute("RESET REPLICA 'gone' ALL")


def test_a_run_waits_for_the_flag_says_so_and_has_the_bits_of_one_that_never_waited(live: Live) -> None:
    undisturbed = live.walk()
    digest = run_digest(live.world.store, undisturbed.run_id)
    live.world.text["store"] = "waited"
    waited = live.world.folder / "waited"
    said: list[str] = []

    def heard(event: Event) -> None:
        if isinstance(event, Waiting):
            said.append(event.reason)
            shown = open_reader(waited).runs(limit=1)[0]
            assert shown.why == event.reason, "status says it too"
            live.execute("DELETE FROM pause")

    live.execute("INSERT INTO pause VALUES ('backup')")
    row = live.walk("{pause_table: pause}", heard=heard)
    assert said == ["the pause flag is raised: the table pause holds a row", ""]
    assert run_digest(waited, row.run_id) == digest
    assert row.held_back_s > 0
    assert report_of(open_reader(waited), row.run_id, "waited").run.held_back_s > 0


def test_an_attempt_gives_way_between_two_pages_and_that_is_no_failure(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(brake, "PATIENCE_S", 0.1)
    monkeypatch.setattr(brake, "LOOK_EVERY_S", 0.0)  # a range of this size is read in less than the second between two looks
    stop = live.world.folder / "stop"
    flagged = AtTheNth(2, stop.touch, Stage.FREEZE)

    def heard(event: Event) -> None:
        if isinstance(event, Waiting) and event.reason:
            stop.unlink()

    row = live.walk(f"{{pause_file: {stop}}}", executor=InlineExecutor(flagged), heard=heard)
    assert row.state == "finished"
    tried = flagged.numbers(Stage.FREEZE)
    assert tried == [0, 1, 1, *range(2, max(tried) + 1)], "it comes first again"
    assert open_reader(live.world.store).failures(row.run_id) == ()


def test_a_wait_that_lasts_too_long_ends_held_and_another_driver_goes_on(live: Live) -> None:
    live.execute("INSERT INTO pause VALUES ('backup')")
    with pytest.raises(Paused, match=r"source_paused[\s\S]*resume r-") as held:
        live.walk("{pause_table: pause}", max_wait=timedelta(seconds=0.2))
    assert held.value.exit_code == HELD
    (row,) = open_reader(live.world.store).runs()
    assert (row.state, row.released_at) == ("held", None)
    assert "the table pause holds a row" in row.why
    assert live.walk("{}").run_id == row.run_id, "settings are no part of the plan: with others the same run goes on"


def test_a_critical_load_ends_the_run_and_it_is_resumed(live: Live) -> None:
    with live.busy(3), pytest.raises(Paused, match="source_overloaded") as held:
        live.walk("{threads_running: 1, critical_threads_running: 2}")
    assert held.value.exit_code == HELD
    assert live.walk("{threads_running: 24}").state == "finished"


@pytest.mark.parametrize("by", ["pymysql", "connectorx"])
def test_sixty_four_workers_never_hold_more_connections_than_allowed(
    by: str, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "connectorx":
        pytest.importorskip("connectorx")
    monkeypatch.setattr(mysql, "can_read_fast", lambda _url: by == "connectorx")
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 15)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 5)
    monkeypatch.setattr(mysql, "MOST_PAGE_ROWS", 5)
    real = Brake.let_through

    def slowly(held: Brake) -> None:
        time.sleep(0.02)  # with its connection in hand: all that may be open at once are, and are seen
        real(held)

    monkeypatch.setattr(Brake, "let_through", slowly)
    counts: list[int] = []
    over = threading.Event()

    def count() -> None:
        query = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{live.database}'"
        admin = sa.make_url(live.server.url("mysql"))
        watching = pymysql.connect(
            host=live.server.host, port=live.server.port, user=str(admin.username), password=str(admin.password), autocommit=True
        )
        with contextlib.closing(watching), watching.cursor() as cursor:
            while not over.is_set():
                cursor.execute(query)
                (found,) = cursor.fetchall()
                counts.append(found[0])

    def heard(event: Event) -> None:
        if isinstance(event, StageFinished) and event.stage == "freeze":
            over.set()

    watch = threading.Thread(target=count)
    with (
        LocalCluster(n_workers=1, threads_per_worker=64, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        watch.start()
        try:
            row = live.walk("{connections: 8}", executor=DaskExecutor(client, attempt), heard=heard)
        finally:
            over.set()
            watch.join()
    assert row.state == "finished"
    assert 3 <= max(counts) <= 8


def test_what_the_brake_could_not_look_at_is_refused_with_what_mends_it(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = f"gentle_{live.database[-8:]}"
    live.execute(f"CREATE USER {reader}@'%' IDENTIFIED BY '{PASSWORD}'", f"GRANT SELECT ON {live.database}.* TO {reader}@'%'")
    monkeypatch.setenv("BATCHSCORE_URL_CRM", live.server.url(live.database, user=reader))
    with pytest.raises(Refused) as refusal:
        live.walk("{pause_table: paws, replica_lag_s: 30}")
    assert "CREATE TABLE `paws`" in str(refusal.value)
    assert f"GRANT REPLICA MONITOR ON *.* TO '{reader}'@'%'" in str(refusal.value)
    assert not live.world.store.exists()
    live.execute(f"GRANT REPLICA MONITOR ON *.* TO {reader}@'%'")
    assert live.walk("{pause_table: pause, replica_lag_s: 30}").state == "finished"
