"""Guarantee 1, of `reconsider`: a worker and a driver that die while cleared accounts are looked at change nothing of the end."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscore.failpoints import Point
from batchscore.operations.verify import verify_run
from batchscore.plan import Stage
from batchscore.ports import RunRow
from batchscore.store import open_reader
from tests.chaos.cluster import Cluster
from tests.chaos.killed_look import KILLED, drive
from tests.chaos.processes import Child
from tests.commands import call
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

AGAIN = "{queue: abuse, budget: 60, again: {counts: {mails_7d: 2}, reasons: 3}}"


def cleared(folder: Path) -> SmallWorld:
    """A world whose store has a run of a week before, with all of its flags cleared."""
    world = make_small_world(folder, n_accounts=120)
    world.text["partition_rows"] = "40"
    world.spec(policy="{queue: abuse, budget: 30}", as_of="2026-01-08")
    assert call("run", world.spec_path, "--inline").code == 0
    flags = open_reader(world.store).queue("abuse", limit=100)
    said = folder / "decisions.csv"
    said.write_text("account_id,disposition\n" + "".join(f"{flag.flag.account_id},cleared\n" for flag in flags))
    assert call("queue", "import", said, "--by", "Ada", "--queue", "abuse", "--store", world.store).code == 0
    world.text.update(name="other", policy=AGAIN, as_of="2026-01-15")
    return world


def newest(store: Path) -> RunRow:
    return open_reader(store).runs()[0]


def outcome(store: Path) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """Scores and flags; the decision; what `reconsider` found of each account."""
    row = newest(store)
    assert row.state == "finished"
    assert row.decision is not None
    receipts = open_reader(store).receipts(row.run_id, Stage.RECONSIDER)
    looks = pa.concat_tables([pq.read_table(store / output.path) for receipt in receipts for output in receipt.outputs])
    return run_digest(store, row.run_id), pq.read_table(row.decision.path).to_pylist(), looks.sort_by("account_id").to_pylist()


@pytest.mark.timeout(120)
def test_a_worker_and_a_driver_killed_while_cleared_accounts_are_looked_at_end_equal(tmp_path: Path) -> None:
    world = cleared(tmp_path)
    store = tmp_path / "killed"
    shutil.copytree(world.store, store)
    world.spec()
    assert call("run", world.spec_path, "--inline").code == 0
    undisturbed = outcome(world.store)
    world.spec(store="killed")
    with Cluster(tmp_path, random.Random(1)) as cluster:
        with Child(drive, str(world.spec_path), cluster.address, Point.RECEIPTS_ACCEPTING) as driver:
            assert driver.wait() == -signal.SIGKILL, "no look was to be committed"
        assert (store / KILLED).exists(), "no worker was killed"
        run_id = newest(store).run_id
        assert open_reader(store).unfinished(run_id, Stage.RECONSIDER), "it died before the look was committed"
        cluster.mend()
        with Child(drive, str(world.spec_path), cluster.address, "") as driver:
            assert driver.wait() == 0
    assert len(undisturbed[2]) >= 10
    assert repr(outcome(store)) == repr(undisturbed)
    reader = open_reader(store)
    assert not reader.quarantined(run_id)
    assert verify_run(reader.run(run_id), reader, store).true
