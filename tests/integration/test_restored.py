"""A database restored from an older backup, beside files that had gone on: resumed, the run ends as if nothing had been."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from batchscore.dispatch.limits import Limits
from batchscore.errors import Interrupted
from batchscore.executors.inline import InlineExecutor
from batchscore.operations.verify import verify_run
from batchscore.pipeline import run
from batchscore.plan import INDEXES, Plan, Score, Stage
from batchscore.planner import make_plan
from batchscore.ports import RunRow, StoreReader
from batchscore.store import DATABASE, open_cleaner, open_reader, open_store
from tests.fake_attempts import AtTheNth, Noted
from tests.run_digest import run_digest
from tests.small_world import make_small_world


def drive(plan: Plan, *, attempts: int | None = None) -> RunRow:
    """Drive the plan to its end, or stop after so many attempts."""
    stop = threading.Event()
    made = Noted() if attempts is None else AtTheNth(attempts, stop.set)
    store = open_store(Path(plan.spec.store), "integer")
    return run(plan, executor=InlineExecutor(made), store=store, observer=lambda _event: None, limits=Limits(stop=stop))


def copy(source: Path, target: Path) -> None:
    """As a backup tool does it, and as a restore does."""
    for suffix in ("", "-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as write:
        read.backup(write)


def n_outputs(store: Path) -> int:
    return sum(1 for stage in Stage for _ in (store / stage.value).rglob("*.parquet"))


def indexes_of(reader: StoreReader, run_id: str) -> set[str]:
    works = [partition.work for partition in reader.partitions(run_id, Stage.SCORE)]
    scores = [work for work in works if isinstance(work, Score)]
    return {index.path for work in scores for index in (work.snapshots, *work.rollups.values())}


@pytest.mark.parametrize("attempts", [1, 5])
def test_a_run_resumed_on_an_older_database_is_equal(tmp_path: Path, attempts: int) -> None:
    world = make_small_world(tmp_path, n_accounts=120)
    calm = make_plan(world.spec(store="calm", partition_rows="20"))
    undisturbed = run_digest(Path(calm.spec.store), drive(calm).run_id)
    plan = make_plan(world.spec(store="restored", partition_rows="20"))
    store = Path(plan.spec.store)
    with pytest.raises(Interrupted):
        drive(plan, attempts=attempts)
    copy(store / DATABASE, tmp_path / "backup.db")
    assert run_digest(store, drive(plan).run_id) == undisturbed
    n_files = n_outputs(store)
    copy(tmp_path / "backup.db", store / DATABASE)
    row = drive(plan)
    assert run_digest(store, row.run_id) == undisturbed
    reader = open_reader(store)
    assert verify_run(row, reader, store).true
    lost = open_cleaner(store).clean(grace=timedelta(0), apply=True)
    assert {str(path) for path in (store / INDEXES).iterdir()} == indexes_of(reader, row.run_id)
    assert n_outputs(store) == n_files, "what the lost database knew of is cleaned away, and nothing else"
    assert lost
    assert verify_run(row, reader, store).true
