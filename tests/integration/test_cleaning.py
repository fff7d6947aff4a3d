"""clean beside a run that is under way: what its attempts wrote, and nobody committed yet, is not lost."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from batchscore.attempt import attempt
from batchscore.executors.inline import InlineExecutor
from batchscore.plan import Task
from batchscore.receipt import Receipt
from batchscore.store import open_cleaner
from tests.commands import call
from tests.small_world import make_small_world
from tests.whole_runs import walk


def test_cleaning_beside_a_run_leaves_what_it_has_not_committed(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=60)
    attempts: list[int] = []

    def clean_before_it_is_committed(task: Task) -> Receipt:
        receipt = attempt(task)
        attempts.append(len(open_cleaner(world.store).clean(grace=timedelta(0), apply=True)))
        return receipt

    old = world.store / "score" / "of-nobody.parquet"
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (time.time() - 7_200,) * 2)
    row = walk(world, InlineExecutor(clean_before_it_is_committed))
    assert (row.state, sum(attempts)) == ("finished", 1), "only what was there before the run"
    assert call("verify", row.run_id, "--store", world.store).code == 0
