"""An attempt computes first and settles last: it gives up its worker's turn once, its files whole and none of them durable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from batchscore.attempt import attempt
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.settling import Settling
from batchscore.store import open_store
from batchscore.turn import turn
from tests.small_world import make_small_world, pack

ENDINGS = (".parquet", ".arrow")


class Watched:
    """The real attempt; counts its turns given up, and syncs of files, and tells what stood under final names by then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stages: Counter[Stage] = Counter()
        self.n_drafts = 0
        self._n_given_up = self._n_synced = 0
        real = Settling.sync

        def counted(settling: Settling) -> None:
            self._n_synced += 1
            real(settling)

        monkeypatch.setattr(Settling, "sync", counted)

    def __call__(self, task: Task) -> Receipt:
        folders = [Path(task.store) / partition.address for partition in (task.partition, *task.beside)]

        def given_up() -> None:
            self._n_given_up += 1
            assert not self._n_synced, "it waited for the disk while it had the turn"
            there = [path.name for folder in folders if folder.is_dir() for path in folder.iterdir()]
            assert [name for name in there if name.endswith(ENDINGS)] == []
            self.n_drafts += len(there)

        self._n_given_up = self._n_synced = 0
        with turn(given_up):
            receipt = attempt(task)
        n_outputs = sum(len(one.outputs) for one in (receipt, *receipt.beside))
        assert (self._n_given_up, self._n_synced) == (1, n_outputs)
        self.stages[task.partition.stage] += n_outputs
        return receipt


def test_every_attempt_gives_up_its_turn_once_with_its_files_whole_and_unsettled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_small_world(tmp_path)
    pack(tmp_path, np.random.default_rng(2), name="candidate", place="candidate")
    watched = Watched(monkeypatch)
    spec = world.spec(partition_rows="150", bundles="[bundle, {path: candidate, shadow: true}]")
    plan = make_plan(spec)
    store = open_store(Path(plan.spec.store), world.kind)
    row = run(plan, executor=InlineExecutor(watched), store=store, observer=lambda _: None)
    assert row.state == "finished"
    assert watched.n_drafts == watched.stages.total()
    assert {Stage.FREEZE, Stage.ROLLUP, Stage.SCORE, Stage.REASONS} <= set(watched.stages)
