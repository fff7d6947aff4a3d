"""Progress is one number: events, ledger, table, JSON and API agree at each commit, and it never goes back, over any stop."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.dispatch.limits import Limits
from batchscore.errors import Interrupted
from batchscore.events import Event, PartitionCommitted, StageStarted
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.planner import make_plan
from batchscore.store import Ledger, open_reader, open_store
from tests.commands import call
from tests.small_world import SmallWorld, make_small_world


class Watched:
    """Looks everywhere at each commit; stops the run after ``n_more`` of them."""

    def __init__(self, world: SmallWorld, seen: dict[str, list[tuple[int, int]]], n_more: int) -> None:
        self._world, self._seen, self._n_more = world, seen, n_more
        self._by_events: dict[str, tuple[int, int]] = {}
        self.limits = Limits(stop=threading.Event())

    def __call__(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._by_events[event.stage] = (event.n_done, event.n_rows_done)
        if not isinstance(event, PartitionCommitted):
            return
        n, n_rows = self._by_events[event.stage]
        self._by_events[event.stage] = mine = (n + 1, n_rows + event.n_rows)
        (row,) = [row for row in open_reader(self._world.store).stages(event.run_id) if row.stage == event.stage]
        assert (row.n_committed, row.n_rows_committed) == mine, "events and API"
        said = json.loads(call("status", event.run_id, "--store", self._world.store, "--json").stdout)
        (told,) = [stage for stage in said["stages"] if stage["stage"] == event.stage]
        assert (told["n_committed"], told["n_rows_committed"]) == mine, "JSON"
        shown = call("status", event.run_id, "--store", self._world.store).stdout
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{event.stage} ")]
        assert f"{mine[0]} of {row.n_partitions}" in line, "table"
        assert f"{mine[1]:,} of {row.n_rows:,}" in line, "table"
        before = self._seen.setdefault(event.stage, [(0, 0)])
        assert mine > before[-1], "never back"
        before.append(mine)
        self._n_more -= 1
        if not self._n_more:
            self.limits.stop.set()


@pytest.mark.parametrize("stops", [(1, 2, 5, 1000)])
def test_progress_is_the_same_everywhere_and_never_goes_back_over_stops_and_resumes(
    stops: tuple[int, ...], tmp_path: Path
) -> None:
    world = make_small_world(tmp_path)
    plan = make_plan(world.spec())
    seen: dict[str, list[tuple[int, int]]] = {}
    store: Ledger = open_store(world.store, world.kind)
    for n_more in stops:
        watched = Watched(world, seen, n_more)
        try:
            row = run(plan, executor=InlineExecutor(attempt), store=store, observer=watched, limits=watched.limits)
        except Interrupted:
            continue
        assert row.state == "finished"
        assert row.epoch == len(stops)
    for stage in open_reader(world.store).stages(open_reader(world.store).runs()[0].run_id):
        if stage.n_partitions:
            assert seen[stage.stage][-1] == (stage.n_partitions, stage.n_rows) == (stage.n_committed, stage.n_rows_committed)
