"""One attempt at one partition, on a worker: read what the task refers to, compute, write uniquely named files, return a receipt.

An attempt may run twice, or wake after it was given up: whatever it writes has a name drawn here, inside, and stays
unreferenced until the driver commits its receipt. It never sees the database of runs.

It computes first and settles last: once its files are whole, and it holds nothing else, it gives up its turn on the worker, and
waits for the disk beside the next attempt.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from batchscore import log_fields
from batchscore.attempt.explaining import explain_flags, reconsider
from batchscore.attempt.inputs import freeze_as, freeze_gently, merge_rollups, roll_up_events
from batchscore.attempt.outcome import Outcome
from batchscore.attempt.scoring import score
from batchscore.drafts import Drafts
from batchscore.failpoints import Point, reach
from batchscore.models.loading import Route
from batchscore.plan import FreezeEvents, FreezeParquet, FreezeSql, Merge, Partition, Reasons, Reconsider, Rollup, Score, Task
from batchscore.receipt import Receipt
from batchscore.sources.freeze import freeze_events, freeze_parquet, freeze_sql
from batchscore.turn import give_up_turn


def attempt(task: Task, *, route: Route = "fastest") -> Receipt:
    """Do the task's partition, and those beside it; ``route`` (see `load_scorer`) changes the speed and never a bit.

    Raises:
        PartitionError: doing it again would not help: the partition is to be quarantined.
        AttemptFailed: a disk or a worker failed.
        Refused: the input is such that the whole run must end.
    """
    drawn = uuid.uuid4().hex
    with log_fields.bound(attempt=drawn):
        return _attempt(task, route, drawn)


def _attempt(task: Task, route: Route, drawn: str) -> Receipt:
    partitions = (task.partition, *task.beside)
    outcomes = [Outcome() for _ in partitions]
    started = time.perf_counter()
    reach(Point.ATTEMPT_BEGUN)
    with ExitStack() as held:
        drafts = [held.enter_context(Drafts(Path(task.store), partition.address)) for partition in partitions]
        _compute(task, outcomes, drafts, route)
        give_up_turn()
        for outcome, files in zip(outcomes, drafts, strict=True):
            with outcome.timed("settle"):
                outcome.outputs = files.publish()
    named = sum(sum(outcome.seconds.values()) for outcome in outcomes)
    outcomes[0].seconds["other"] = round(max(0.0, time.perf_counter() - started - named), 4)  # opening, hashing: what has no name
    first, *others = outcomes
    receipts = tuple(_receipt(partition, one, uuid.uuid4().hex) for partition, one in zip(task.beside, others, strict=True))
    reach(Point.ATTEMPT_DONE)
    return _receipt(task.partition, first, drawn).model_copy(update={"beside": receipts})


def _compute(task: Task, outcomes: Sequence[Outcome], drafts: Sequence[Drafts], route: Route) -> None:
    """All that an attempt has to do but settling its files; what it held in memory is let go of with it."""
    outcome, files = outcomes[0], drafts[0]
    match task.partition.work:
        case FreezeParquet() as work:
            freeze_as(freeze_parquet, work, outcome, files)
        case FreezeSql() as work:
            freeze_gently(task, freeze_sql, work, outcome, files)
        case FreezeEvents() as work:
            freeze_gently(task, freeze_events, work, outcome, files)
        case Rollup() as work:
            roll_up_events(work, outcome, files)
        case Merge() as work:
            merge_rollups(task, work, outcome, files)
        case Score() as work:
            score(task, work, outcomes, drafts, route)
        case Reconsider() as work:
            reconsider(task, work, outcome, files, route)
        case Reasons() as work:
            explain_flags(task, work, outcome, files, route)


def _receipt(partition: Partition, outcome: Outcome, drawn: str) -> Receipt:
    return Receipt(
        stage=partition.stage,
        number=partition.number,
        address=partition.address,
        attempt=drawn,
        outputs=outcome.outputs,
        counts=outcome.counts,
        keys={name: str(keys) for name, keys in outcome.keys.items()},
        seconds=outcome.seconds,
        scorer=outcome.scorer,
        alerts=tuple(outcome.alerts),
        worst_lag_s=outcome.worst_lag_s,
        live=isinstance(partition.work, (FreezeSql, FreezeEvents)),
    )
