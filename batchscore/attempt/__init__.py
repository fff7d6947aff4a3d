"""One attempt at one partition, on a worker: read what the task refers to, compute, write uniquely named files, return a receipt.

An attempt may run twice, or wake after it was given up: whatever it writes has a name drawn here, inside, and stays
unreferenced until the driver commits its receipt. It never sees the database of runs.
"""

from __future__ import annotations

import time
import uuid

from batchscore import log_fields
from batchscore.attempt.explaining import explain_flags, reconsider
from batchscore.attempt.inputs import freeze_as, freeze_gently, merge_rollups, roll_up_events
from batchscore.attempt.outcome import Outcome
from batchscore.attempt.scoring import score
from batchscore.failpoints import Point, reach
from batchscore.models.loading import Route
from batchscore.plan import FreezeEvents, FreezeParquet, FreezeSql, Merge, Partition, Reasons, Reconsider, Rollup, Score, Task
from batchscore.receipt import Receipt
from batchscore.sources.freeze import freeze_events, freeze_parquet, freeze_sql


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
    work = task.partition.work
    outcome, beside = Outcome(), [Outcome() for _ in task.beside]
    started = time.perf_counter()
    reach(Point.ATTEMPT_BEGUN)
    match work:
        case FreezeParquet():
            freeze_as(task, freeze_parquet, work, outcome)
        case FreezeSql():
            freeze_gently(task, freeze_sql, work, outcome)
        case FreezeEvents():
            freeze_gently(task, freeze_events, work, outcome)
        case Rollup():
            roll_up_events(task, work, outcome)
        case Merge():
            merge_rollups(task, work, outcome)
        case Score():
            score(task, work, [outcome, *beside], route)
        case Reconsider():
            reconsider(task, work, outcome, route)
        case Reasons():
            explain_flags(task, work, outcome, route)
    named = sum(sum(one.seconds.values()) for one in (outcome, *beside))
    outcome.seconds["other"] = round(max(0.0, time.perf_counter() - started - named), 4)  # opening, hashing: what has no name
    others = zip(task.beside, beside, strict=True)
    receipts = tuple(_receipt(partition, one, uuid.uuid4().hex) for partition, one in others)
    reach(Point.ATTEMPT_DONE)
    return _receipt(task.partition, outcome, drawn).model_copy(update={"beside": receipts})


def _receipt(partition: Partition, outcome: Outcome, drawn: str) -> Receipt:
    return Receipt(
        stage=partition.stage,
        number=partition.number,
        address=partition.address,
        attempt=drawn,
        outputs=tuple(outcome.outputs),
        counts=outcome.counts,
        keys={name: str(keys) for name, keys in outcome.keys.items()},
        seconds=outcome.seconds,
        scorer=outcome.scorer,
        alerts=tuple(outcome.alerts),
        worst_lag_s=outcome.worst_lag_s,
        live=isinstance(partition.work, (FreezeSql, FreezeEvents)),
    )
