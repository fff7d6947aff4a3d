"""Failures and suspicions: each is logged and counted, and with enough failures a partition is quarantined."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from batchscore.plan import Partition, Task
from batchscore.ports import RunHandle
from batchscore.store.tables import attempts, partitions

_MESSAGE_CHARS: Final = 2_000


class FailedAttempt(NamedTuple):
    """How an attempt failed, and when (seconds since 1970)."""

    reason: str
    message: str
    at: float


def log_failure(connection: sa.Connection, run: RunHandle, task: Task, failure: FailedAttempt) -> None:
    """Record a failed attempt, which counts for nothing."""
    said = {"reason": failure.reason, "message": failure.message[:_MESSAGE_CHARS], "ended_at": failure.at}
    _log(connection, run, task, {"outcome": "failed", **said})


def count_failure(connection: sa.Connection, run: RunHandle, task: Task, failure: FailedAttempt, quarantine_at: int) -> bool:
    """Count a failure, the ``quarantine_at``-th of which quarantines the partition. Whether it now is."""
    of_task = _of(run, task.partition) & (partitions.c.state == "planned")
    connection.execute(partitions.update().where(of_task).values(n_failures=partitions.c.n_failures + 1))
    why = {"reason": failure.reason, "message": failure.message[:_MESSAGE_CHARS]}
    aside = {"state": "quarantined", **why, "epoch": run.epoch, "updated_at": failure.at}
    connection.execute(partitions.update().where(of_task & (partitions.c.n_failures >= quarantine_at)).values(**aside))
    state = connection.execute(sa.select(partitions.c.state).where(_of(run, task.partition))).scalar_one()
    return bool(state == "quarantined")


def count_suspicion(connection: sa.Connection, run: RunHandle, task: Task, reason: str, at: float) -> int:
    """Record that a worker was lost, or given up, at the task's partition; how often it has been."""
    _log(connection, run, task, {"outcome": "suspected", "reason": reason, "message": "", "ended_at": at})
    counted = partitions.update().where(_of(run, task.partition)).values(n_suspicions=partitions.c.n_suspicions + 1)
    connection.execute(counted)
    return int(connection.execute(sa.select(partitions.c.n_suspicions).where(_of(run, task.partition))).scalar_one())


def _log(connection: sa.Connection, run: RunHandle, task: Task, row: dict[str, Any]) -> None:
    partition = task.partition
    so_far = sa.select(sa.func.count()).where(
        attempts.c.run_id == run.run_id,
        attempts.c.stage == partition.stage.value,
        attempts.c.number == partition.number,
    )
    of = {
        "run_id": run.run_id,
        "stage": partition.stage.value,
        "number": partition.number,
        "isolated": task.isolated,
        "epoch": run.epoch,
        "ordinal": connection.execute(so_far).scalar_one() + 1,
    }
    connection.execute(attempts.insert().values(**of, **row))


def _of(run: RunHandle, partition: Partition) -> sa.ColumnElement[bool]:
    of_stage = (partitions.c.run_id == run.run_id) & (partitions.c.stage == partition.stage.value)
    return of_stage & (partitions.c.number == partition.number)
