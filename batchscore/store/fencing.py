"""The fence: a driver writes a run only while its epoch is the run's, and every such write lengthens its lease."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from batchscore.command import command
from batchscore.database import transact
from batchscore.errors import Fenced
from batchscore.ports import RunHandle
from batchscore.store.tables import runs

LEASE_S: Final = 30.0

T = TypeVar("T")
Body = Callable[[sa.Connection], T]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """How long a run is a driver's after each of its writes, by ``now``, the database's clock in seconds since 1970."""

    now: sa.ColumnElement[Any]
    seconds: float

    @property
    def until(self) -> sa.ColumnElement[Any]:
        """When a lease that is taken or lengthened now runs out."""
        return self.now + self.seconds


class Fence:
    """Transactions of drivers. One whose run another driver has taken, or that was closed, raises Fenced and changes nothing."""

    def __init__(self, engine: sa.Engine, lease: Lease) -> None:
        self._engine = engine
        self._lease = lease

    def write(self, run: RunHandle, body: Body[T]) -> T:
        """Do ``body`` in one transaction, once. It may run several times.

        The mark it leaves is what tells, after a COMMIT without an answer, whether it stands. A run has one driver, and
        this driver one such transaction at a time: what another of its threads writes leaves no mark (`write_again`).
        """
        mark = uuid.uuid4().hex

        def whole(connection: sa.Connection) -> T:
            self._check(connection, run, last_write=mark)
            return body(connection)

        def landed(connection: sa.Connection) -> bool:
            query = sa.select(runs.c.last_write).where(runs.c.run_id == run.run_id).with_for_update()
            return bool(connection.execute(query).scalar_one() == mark)

        return transact(self._engine, whole, where="store", landed=landed)

    def write_again(self, run: RunHandle, body: Body[T]) -> T:
        """Do ``body``, which done twice is done once, in one transaction. From any thread of the driver."""

        def whole(connection: sa.Connection) -> T:
            self._check(connection, run)
            return body(connection)

        return transact(self._engine, whole, where="store")

    def clock(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the database's clock."""
        return float(connection.execute(sa.select(self._lease.now)).scalar_one())

    def _check(self, connection: sa.Connection, run: RunHandle, **marked: str) -> None:
        """Lengthen the lease if the run is still this driver's, in the WHERE. Locks the run's row."""
        mine = (runs.c.run_id == run.run_id) & (runs.c.epoch == run.epoch) & (runs.c.state == "running")
        renewed = runs.update().where(mine).values(lease_until=self._lease.until, updated_at=self._lease.now, **marked)
        if connection.execute(renewed).rowcount != 1:
            raise Fenced(
                "fenced",
                "a newer driver has this run, or it was closed",
                where=f"run {run.run_id}",
                remedy=command("status", run.run_id, run.store),
            )
