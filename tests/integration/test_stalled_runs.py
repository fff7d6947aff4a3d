"""A run with an attempt that never ends finishes by itself, with the bits of one undisturbed, and leaves the cluster's story."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from batchscore.attempt import attempt
from batchscore.events import Event, PartitionFailed, StallFound
from batchscore.executors.connect import local_cluster
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.store import open_reader, open_store
from tests import fake_attempts as fakes
from tests.run_digest import run_digest
from tests.small_world import make_small_world


def test_a_run_with_an_attempt_that_never_ends_finishes_and_tells(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)

    plan = make_plan(world.spec(store="calm"))
    calm = run(
        plan,
        executor=InlineExecutor(attempt),
        store=open_store(tmp_path / "calm", world.kind),
        observer=hear,
    )
    plan = make_plan(world.spec(store="store"))
    with local_cluster(fakes.score_but_hang_the_first_time, n_workers=2, stall_s=8.0) as executor:
        row = run(plan, executor=executor, store=open_store(world.store, world.kind), observer=hear)
    assert run_digest(world.store, row.run_id) == run_digest(tmp_path / "calm", calm.run_id)
    stall, *_ = [event for event in heard if isinstance(event, StallFound)]
    story = Path(stall.story).read_text(encoding="utf-8")
    assert "score_but_hang_the_first_time" in story, "where the worker stood"
    assert "under way: score 2" in story
    ids = {str(value) for value in pq.read_table(tmp_path / "accounts")["id"].to_pylist() if value > 10**6}
    assert not [value for value in ids if value in story]
    assert ("score", 2, "stalled") in {(e.stage, e.number, e.reason) for e in heard if isinstance(e, PartitionFailed)}
    (failed,) = [one for one in open_reader(world.store).failures(row.run_id) if one.reason == "stalled"]
    assert (failed.stage, failed.number, failed.state, failed.n_failures) == ("score", 2, "committed", 0)
