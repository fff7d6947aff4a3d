"""What the processes of the chaos kit do: a whole run, its undo, or a cleaning; each again from wherever the last one died.

The run meets all that a run may meet: a day of mail is missing, so it is held and approved; its first score fails once and its
second loses a worker; its release, and its undo, take several transactions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from batchscore.attempt import attempt
from batchscore.errors import AttemptFailed, Held
from batchscore.executors.guarded import attempted
from batchscore.failpoints import arm
from batchscore.features.feature_set import FeatureSet
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.ports import Worklist
from batchscore.receipt import Outcome, Receipt, Suspected
from batchscore.spec import read_spec
from batchscore.store import flags, open_cleaner, open_reader, open_store, undo
from tests.small_world import SmallWorld, make_small_world

Verb = Literal["run", "undo", "clean"]
N_ACCOUNTS = 90
PARTITION_ROWS = 30


def make_world(folder: Path) -> SmallWorld:
    """A world whose run is held first: its mails lack a day."""
    world = make_small_world(folder, n_accounts=N_ACCOUNTS)
    lost = folder / "mails" / "day=2026-01-12" / "part.parquet"
    pq.write_table(pq.read_table(lost).slice(0, 0), lost)
    world.text.update(gate="{mails: {factor: 3}}", partition_rows=str(PARTITION_ROWS))
    return world


def tell(verb: Verb, spec_path: str, armed: str = "", lease_s: float = 30.0) -> None:
    """Do one verb of the story in this process, armed so; returns when it is done."""
    flags.ROWS_A_TRANSACTION = 5
    flags.ROWS_A_STATEMENT = 3
    undo.ACCOUNTS_A_TRANSACTION = 5
    arm(armed)
    {"run": _run, "undo": _undo, "clean": _clean}[verb](Path(spec_path), lease_s)


def _run(spec_path: Path, lease_s: float) -> None:
    plan = make_plan(read_spec(spec_path))
    folder = Path(plan.spec.store)
    store = open_store(folder, FeatureSet.thaw(plan.feature_set).account_id, lease_s=lease_s)
    while True:
        try:
            run(plan, executor=_Unlucky(folder), store=store, observer=lambda _event: None)
        except Held:
            reader = store.reader()
            (row,) = reader.runs()
            store.approve(reader.holds(row.run_id)[-1], by="Ada", because="the day was lost for good")
        else:
            return


def _undo(spec_path: Path, _lease_s: float) -> None:
    folder = Path(read_spec(spec_path).store)
    (row,) = open_reader(folder).runs()
    open_store(folder, "integer").undo(row.run_id, by="ann@host", why="wrong threshold")


def _clean(spec_path: Path, _lease_s: float) -> None:
    open_cleaner(Path(read_spec(spec_path).store)).clean(grace=timedelta(0), apply=True)


class _Unlucky:
    """Attempts here, in order; once in the life of a store a score fails, and once a worker is lost."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> str:
        return "inline, unlucky"

    def waiting(self) -> str:
        return ""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        while (task := worklist.next()) is not None:
            score = task.partition.number if task.partition.stage is Stage.SCORE else None
            if score == 1 and self._first("lost"):
                yield [Suspected(task=task, running=False)]
            else:
                yield [attempted(self._attempt, task)]
            yield []

    def _attempt(self, task: Task) -> Receipt:
        if task.partition.stage is Stage.SCORE and task.partition.number == 0 and self._first("failed"):
            raise AttemptFailed("attempt_failed", "bad luck", where="score 0")
        return attempt(task)

    def _first(self, what: str) -> bool:
        marker = self._folder / f"{what}.once"
        if marker.exists():
            return False
        marker.touch()
        return True
