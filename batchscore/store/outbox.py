"""The outbox: each change of a flag as a numbered event, written in the transaction of the change and read with a cursor.

Numbers have no gap and are in the order of commits: they are given under the lock of the audit trail's head, which every
such transaction takes last, so whoever has read up to a number misses nothing that comes later. A release has one row, and as
many numbers as flags: they become visible in the one transaction that releases, without a transaction as large as the release.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa

from batchscore.desk import Happened, QueueEvent
from batchscore.flag import BEFORE_REVIEWERS, FlagState
from batchscore.store.rows import account_id_of, from_microseconds
from batchscore.store.tables import events_table, flags_table

_ROWS_A_STATEMENT: Final = 500
_events: Final = events_table("raw")
_flags: Final = flags_table("raw")
_OF_FLAG: Final = (_flags.c.queue, _flags.c.account_id, _flags.c.run_id, _flags.c.released_as, _flags.c.release_ordinal)


class Change:
    """One event to be written; ``account_id`` as the column holds it."""

    __slots__ = ("account_id", "act", "queue", "run_id", "state", "who")

    def __init__(self, act: Happened, who: str, queue: str, account_id: Any, run_id: str, state: FlagState) -> None:
        self.act, self.who, self.queue, self.account_id, self.run_id, self.state = act, who, queue, account_id, run_id, state


def append_events(connection: sa.Connection, changes: Sequence[Change], at: int) -> None:
    """Number and write ``changes``, in order. The caller holds the lock of the trail's head (`AuditTrail.append` takes it)."""
    last = newest_number(connection)
    rows = [
        {
            "number": last + ordinal, "n": 1, "at": at, "act": change.act.value, "who": change.who, "queue": change.queue,
            "account_id": change.account_id, "run_id": change.run_id, "state": change.state.value,
        }
        for ordinal, change in enumerate(changes, start=1)
    ]  # fmt: skip
    for first in range(0, len(rows), _ROWS_A_STATEMENT):
        connection.execute(_events.insert(), rows[first : first + _ROWS_A_STATEMENT])


def append_release(connection: sa.Connection, run_id: str, who: str, queue: str, at: int) -> None:
    """One row that gives every flag of the run its number. The caller holds the lock of the trail's head."""
    n = connection.execute(sa.select(sa.func.max(_flags.c.release_ordinal)).where(_flags.c.run_id == run_id)).scalar() or 0
    row = {
        "number": newest_number(connection) + n, "n": n, "at": at, "act": Happened.RELEASED.value, "who": who, "queue": queue,
        "account_id": None, "run_id": run_id, "state": "",
    }  # fmt: skip
    if n:
        connection.execute(_events.insert().values(**row))


def events_after(connection: sa.Connection, number: int, limit: int) -> tuple[QueueEvent, ...]:
    """Up to ``limit`` events after that number, in order."""
    found: list[QueueEvent] = []
    query = sa.select(_events).where(_events.c.number > number).order_by(_events.c.number).limit(limit)
    for row in connection.execute(query).mappings().all():
        found += [_event(row)] if row["act"] != Happened.RELEASED else _released(connection, row, number, limit - len(found))
        if len(found) >= limit:
            break
    return tuple(found)


def events_of(connection: sa.Connection, queue: str, account_id: Any) -> tuple[QueueEvent, ...]:
    """Every event of an account in a queue, by number."""
    own = sa.select(_events).where(_events.c.queue == queue, _events.c.account_id == account_id)
    found = [_event(row) for row in connection.execute(own).mappings()]
    released = (
        sa.select(_events.c.number, _events.c.n, _events.c.at, _events.c.who, *_OF_FLAG)
        .select_from(_flags.join(_events, (_events.c.run_id == _flags.c.run_id) & (_events.c.act == Happened.RELEASED.value)))
        .where(_flags.c.queue == queue, _flags.c.account_id == account_id, _flags.c.release_ordinal <= _events.c.n)
    )
    found += [_of_release(row, row) for row in connection.execute(released).mappings()]
    return tuple(sorted(found, key=lambda event: event.number))


def _released(connection: sa.Connection, row: sa.RowMapping, after: int, limit: int) -> Iterator[QueueEvent]:
    before = row["number"] - row["n"]
    query = (
        sa.select(*_OF_FLAG)
        .where(_flags.c.run_id == row["run_id"], _flags.c.release_ordinal > after - before, _flags.c.release_ordinal <= row["n"])
        .order_by(_flags.c.release_ordinal)
        .limit(limit)
    )
    for flag in connection.execute(query).mappings():
        yield _of_release(row, flag)


def told_as(released_as: str) -> tuple[Happened, FlagState]:
    """What the event of a flag's release says, and what the flag became by it."""
    if released_as in BEFORE_REVIEWERS:
        return Happened.OPENED, FlagState.OPEN
    return Happened(released_as), FlagState.OVERTAKEN


def _of_release(row: sa.RowMapping, flag: sa.RowMapping) -> QueueEvent:
    act, state = told_as(flag["released_as"])
    return QueueEvent(
        number=row["number"] - row["n"] + flag["release_ordinal"],
        at=from_microseconds(row["at"]),
        act=act,
        who=row["who"],
        queue=flag["queue"],
        account_id=account_id_of(flag["account_id"]),
        run_id=flag["run_id"],
        state=state,
    )


def _event(row: sa.RowMapping) -> QueueEvent:
    return QueueEvent(
        number=row["number"],
        at=from_microseconds(row["at"]),
        act=Happened(row["act"]),
        who=row["who"],
        queue=row["queue"],
        account_id=account_id_of(row["account_id"]),
        run_id=row["run_id"],
        state=FlagState(row["state"]),
    )


def newest_number(connection: sa.Connection) -> int:
    """Of the last event; 0 before there is any."""
    return int(connection.execute(sa.select(sa.func.max(_events.c.number))).scalar() or 0)
