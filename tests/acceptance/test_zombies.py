"""Dask runs a task at least once: each partition run three times at once, some stopped and woken late, has one winner."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.errors import Fenced
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.store import open_cleaner, open_reader, open_store
from tests.acceptance.real_cluster import ROOT
from tests.run_digest import run_digest
from tests.small_world import make_small_world

N_RUNNERS = 3
RUNNER = """
import pickle, sys
from batchscore.attempt import attempt
tasks = pickle.load(open(sys.argv[1], "rb"))
with open(sys.argv[2], "ab") as out:
    for task in tasks:
        pickle.dump(attempt(task), out)
        out.flush()
"""


class Runner:
    """A process that makes an attempt at every partition, in an order of its own, and writes the receipts down."""

    def __init__(self, folder: Path, number: int, tasks: list[Task]) -> None:
        random.Random(number).shuffle(tasks)
        order, self._out, self._read = folder / f"tasks-{number}", folder / f"receipts-{number}", 0
        order.write_bytes(pickle.dumps(tasks))
        self._out.touch()
        command = [sys.executable, "-c", RUNNER, str(order), str(self._out)]
        self.process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})

    def has_begun(self) -> bool:
        return self._out.stat().st_size > 0

    def receipts(self) -> list[Receipt]:
        """Receipts written since the last call."""
        found = []
        with self._out.open("rb") as stream:
            stream.seek(self._read)
            while True:
                try:
                    found.append(pickle.load(stream))
                except (EOFError, pickle.UnpicklingError):
                    return found
                self._read = stream.tell()


@pytest.mark.timeout(240)
def test_each_partition_run_three_times_at_once_has_one_winner_each(tmp_path: Path) -> None:
    world = make_small_world(tmp_path, n_accounts=1_200)
    plan = make_plan(world.spec(partition_rows="12"))
    folder = Path(plan.spec.store)
    made: list[Task] = []

    def noted(task: Task) -> Receipt:
        made.append(task)
        return attempt(task)

    undisturbed = run(plan, executor=InlineExecutor(noted), store=open_store(folder, "integer"), observer=lambda _event: None)
    before = run_digest(folder, undisturbed.run_id)
    tasks = [task for task in made if task.partition.stage is Stage.SCORE]
    assert len(tasks) >= 100
    second = make_plan(world.spec(store="raced", partition_rows="12"))
    raced = Path(second.spec.store)
    store = open_store(raced, "integer")
    handle, row = store.open(second, owner="race")
    store.lay_out(handle, Stage.SCORE, [task.partition for task in tasks])
    moved = [task.model_copy(update={"store": str(folder)}) for task in tasks]  # they read, and write, in the first store
    runners = [Runner(tmp_path, number, list(moved)) for number in range(N_RUNNERS)]
    while not runners[0].has_begun():
        assert runners[0].process.poll() is None
        time.sleep(0.01)
    runners[0].process.send_signal(signal.SIGSTOP)
    winners: dict[int, str] = {}
    while len(winners) < len(tasks):
        assert all(runner.process.poll() in {None, 0} for runner in runners)
        time.sleep(0.01)  # the runners have work for every core
        for runner in runners:
            if receipts := runner.receipts():
                for number in store.commit(handle, receipts):
                    assert number not in winners, "one winner each"
                    winners[number] = next(receipt.attempt for receipt in receipts if receipt.number == number)
    runners[0].process.send_signal(signal.SIGCONT)  # the zombie wakes, and finishes its side effects
    for runner in runners:
        assert runner.process.wait(timeout=120) == 0
        assert store.commit(handle, runner.receipts()) == (), "losers agree with the winners and change nothing"
    committed = list(open_reader(raced).receipts(row.run_id, Stage.SCORE))
    assert {receipt.number: receipt.attempt for receipt in committed} == winners
    first = open_reader(folder).receipts(undisturbed.run_id, Stage.SCORE)
    assert [receipt.content() for receipt in committed] == [receipt.content() for receipt in first]
    store.close(handle, "finished")
    with pytest.raises(Fenced):
        store.commit(handle, [attempt(moved[0])])
    losers = open_cleaner(folder).clean(grace=timedelta(0), apply=True)
    assert len(losers) >= N_RUNNERS * len(tasks), "the first run refers to none of the files of the race"
    assert run_digest(folder, undisturbed.run_id) == before
