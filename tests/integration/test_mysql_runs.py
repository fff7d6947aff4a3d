"""Whole runs with accounts and review queue on MySQL give the bits of the same run on files and SQLite."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.errors import Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.keys import IdKind
from batchscore.pipeline import run
from batchscore.plan import Plan, Task
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.receipt import Receipt
from batchscore.sources import mysql, mysql_ranges
from batchscore.store import open_store
from tests.conftest import MakeMySqlStore
from tests.mysql_accounts import load_accounts
from tests.mysql_server import PASSWORD, MySqlServer
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

pytestmark = pytest.mark.mysql
SOURCES = "{accounts: {sql: {url: crm, table: accounts}}, mails: {parquet: {path: mails}}}"


def run_it(plan: Plan, kind: IdKind, tasks: list[Task] | None = None) -> RunRow:
    def noted(task: Task) -> Receipt:
        if tasks is not None:
            tasks.append(task)
        return attempt(task)

    store = open_store(Path(plan.spec.store), kind)
    return run(plan, executor=InlineExecutor(noted), store=store, observer=lambda _event: None)


@pytest.fixture
def world_on_mysql(kind: IdKind, tmp_path: Path, mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    """A world whose accounts are in files and in a table, read in several ranges of several pages."""
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 70)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 30)
    world = make_small_world(tmp_path, kind=kind)
    load_accounts(world, mysql_server, monkeypatch)
    return world


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_a_run_on_mysql_has_the_bits_of_one_on_files(
    kind: IdKind, world_on_mysql: SmallWorld, mysql_store: MakeMySqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world = world_on_mysql
    on_files = run_it(make_plan(world.spec()), kind)
    folder = mysql_store(world.folder / "on-mysql", kind)
    plan = make_plan(world.spec(sources=SOURCES, store="on-mysql", database="review"))
    tasks: list[Task] = []
    on_mysql = run_it(plan, kind, tasks)
    assert on_mysql.state == "finished"
    assert len({task.partition.number for task in tasks if task.partition.stage == "freeze"}) > 3
    assert run_digest(folder, on_mysql.run_id) == run_digest(world.store, on_files.run_id)
    carried = pickle.dumps(tasks) + plan.model_dump_json().encode() + caplog.text.encode()
    assert PASSWORD.encode() not in carried
    assert [path for path in world.folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []


def test_a_spec_whose_database_was_never_made_is_refused_before_anything_is_written(
    mysql_server: MySqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_small_world(tmp_path)
    monkeypatch.setenv("BATCHSCORE_URL_REVIEW", mysql_server.make_database())
    with pytest.raises(Refused, match=r"store_missing[\s\S]*db upgrade"):
        make_plan(world.spec(database="review"))
    assert not world.store.exists()
