"""A run beyond an error budget is held before its release, with the table; an approval lets exactly that go on."""

from __future__ import annotations

from pathlib import Path

import pytest

import batchscore
from batchscore.attempt import attempt
from batchscore.errors import Held, PartitionError
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.ports import RunRow
from batchscore.receipt import Receipt
from batchscore.store import open_reader, open_store
from tests.small_world import SmallWorld, make_small_world


def broken_at_two(task: Task) -> Receipt:
    if task.partition.stage is Stage.SCORE and task.partition.number == 2:
        raise PartitionError("input_corrupt", "a page does not decode", where="part")
    return attempt(task)


def walk(world: SmallWorld, **changes: str) -> RunRow:
    plan = make_plan(world.spec(**changes))
    store = open_store(Path(plan.spec.store), world.kind)
    return run(plan, executor=InlineExecutor(broken_at_two), store=store, observer=lambda _event: None)


def test_a_run_beyond_its_budget_is_held_unreleased_until_approved(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    with pytest.raises(Held, match=r"errors_held(.|\n)*quarantined, 2026-01-15: more than 1\.0000% of") as held:
        walk(world, limits="{quarantined: 0.01, rejected: 0.5}")
    assert held.value.exit_code == 4
    (row,) = open_reader(world.store).runs()
    (hold,) = open_reader(world.store).holds(row.run_id)
    assert (row.state, row.released_at, hold.subject, [one.of for one in hold.findings]) == (
        "held",
        None,
        "errors",
        ["quarantined"],
    )
    with pytest.raises(Held):
        batchscore.resume(row.run_id, store=world.store, inline=True)
    batchscore.approve(row.run_id, store=world.store, by="Ada", because="known")
    row = batchscore.resume(row.run_id, store=world.store, inline=True)
    assert row.state == "finished"
    assert row.released_at is not None


def test_a_run_within_its_budgets_or_that_releases_nothing_goes_on(tmp_path: Path) -> None:
    world = make_small_world(tmp_path)
    assert walk(world, limits="{quarantined: 0.9}").released_at is not None
    assert walk(world, limits="{quarantined: 0}", release="none").state == "finished"
