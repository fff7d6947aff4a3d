"""A run over a filtered table has the bits of a run over the rows that the filter keeps; and is another run than one without."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchscore.dispatch.limits import Limits
from batchscore.errors import Interrupted, Refused
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import FreezeSql, Stage, Task
from batchscore.planner import make_plan
from batchscore.sources import mysql, mysql_ranges
from batchscore.spec import RunSpec
from batchscore.store import open_store
from tests.fake_attempts import AtTheNth
from tests.integration.test_mysql_runs import run_it
from tests.mysql_accounts import load_accounts
from tests.mysql_server import MySqlServer
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

pytestmark = pytest.mark.mysql
CANARY = "8675309"
KEPT = f"[[plan, in, [0, 2, {CANARY}]]]"


@pytest.fixture
def world(tmp_path: Path, mysql_server: MySqlServer, monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    """Accounts in a table that is read in several ranges of several pages; in files those alone that the filter keeps."""
    monkeypatch.setattr(mysql_ranges, "RANGE_ROWS", 70)
    monkeypatch.setattr(mysql, "FIRST_PAGE_ROWS", 30)
    world = make_small_world(tmp_path)
    load_accounts(world, mysql_server, monkeypatch)
    for path in (world.folder / "accounts").glob("*.parquet"):
        rows = pq.read_table(path)
        pq.write_table(rows.filter(pc.not_equal(rows["plan"], 1)), path)
    return world


def spec(world: SmallWorld, store: str, where: str) -> RunSpec:
    sources = f"{{accounts: {{sql: {{url: crm, table: accounts, where: {where}}}}}, mails: {{parquet: {{path: mails}}}}}}"
    return world.spec(sources=sources, store=store)


def test_a_filtered_run_has_the_bits_of_one_over_the_rows_it_keeps_also_when_it_was_cut_inside_the_table(
    world: SmallWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    on_files = run_digest(world.store, run_it(make_plan(world.spec()), "integer").run_id)
    plan = make_plan(spec(world, "cut", KEPT))
    stop = threading.Event()
    stopping = AtTheNth(2, stop.set, Stage.FREEZE)
    with pytest.raises(Interrupted, match="batchscore resume"):
        run(
            plan,
            executor=InlineExecutor(stopping),
            store=open_store(Path(plan.spec.store), "integer"),
            observer=lambda _event: None,
            limits=Limits(stop=stop),
        )
    tasks: list[Task] = []
    row = run_it(plan, "integer", tasks)
    read = [task.partition.number for task in tasks if isinstance(task.partition.work, FreezeSql)]
    assert not set(read) & set(stopping.numbers(Stage.FREEZE))
    assert len(read) > 1
    assert run_digest(Path(plan.spec.store), row.run_id) == on_files
    assert CANARY not in caplog.text


def test_a_filter_is_pinned_and_shown_without_its_values(world: SmallWorld) -> None:
    one, same, other, none = (make_plan(spec(world, "shown", where)) for where in (KEPT, KEPT, "[[plan, in, [0, 2]]]", "[]"))
    assert one.digest == same.digest
    assert one.differences(other.pinned) == one.differences(none.pinned) == ("source accounts",)
    facts = dict(one.shown().facts)
    assert facts["rows of accounts"].startswith("where plan in (3); ")
    assert facts["rows of accounts"] != dict(other.shown().facts)["rows of accounts"]
    assert CANARY not in str(one.shown())
    assert "rows of accounts" not in dict(none.shown().facts)


def test_a_filter_that_the_table_cannot_answer_is_refused_before_anything_is_written(world: SmallWorld) -> None:
    with pytest.raises(Refused, match="column_missing") as missing:
        make_plan(spec(world, "none", f"[[nowhere, ==, {CANARY}], [plan, ==, text]]"))
    assert "plan" in str(missing.value)
    assert CANARY not in str(missing.value)
    assert not (world.folder / "none").exists()
