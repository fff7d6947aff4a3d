"""A transaction done once: begun again from its start while the database stumbles, and asked after when a COMMIT got no answer.

A COMMIT whose answer was lost may stand or not. Doing the transaction again could write twice, giving up could lose it:
so whoever writes says how to find out (``landed``), under the lock that the lost transaction would still hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import sqlalchemy as sa
import stamina

from batchscore.database.failures import is_lost, translated
from batchscore.errors import CommitUnknown, TryAgain
from batchscore.failpoints import Point, reach

REDO_S: Final = 60.0  # a server that was killed is back well within; beyond that a person resumes the run
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 2.0

T = TypeVar("T")
Body = Callable[[sa.Connection], T]


def transact(engine: sa.Engine, body: Body[T], *, where: str, landed: Body[bool] | None = None) -> T:
    """Do ``body`` in one transaction and return what it gives. ``body`` may run several times; its writes stand once.

    ``landed``: whether the transaction stands, asked in a new one after a COMMIT without an answer; it must lock what
    ``body`` locks first. Without it, ``body`` is such that doing it twice is doing it once.

    Raises:
        TryAgain, CommitUnknown: for a minute nothing helped; whatever is committed stays.
    """
    unanswered: list[T] = []
    for attempt in _attempts():
        with attempt, translated(where):
            if unanswered and landed is not None and _asked(engine, landed):
                return unanswered[0]
            unanswered.clear()
            with engine.connect() as connection:
                transaction = connection.begin()
                result = body(connection)
                reach(Point.TRANSACTION_DONE)
                try:
                    transaction.commit()
                except sa.exc.DBAPIError as error:
                    if not is_lost(error):
                        connection.invalidate()  # the transaction may still be open: the next BEGIN would commit it
                        raise
                    unanswered.append(result)
                    raise CommitUnknown(
                        "commit_unknown", "a COMMIT got no answer", where=where, remedy="batchscore status; then resume the run"
                    ) from None
                reach(Point.TRANSACTION_COMMITTED)
            return result
    raise AssertionError("the loop returns or raises")


def read(engine: sa.Engine, body: Body[T], *, where: str) -> T:
    """Do ``body``, which only reads, again from its start while the database stumbles.

    Raises:
        TryAgain: for a minute nothing helped.
    """
    for attempt in _attempts():
        with attempt, translated(where), engine.connect() as connection:
            return body(connection)
    raise AssertionError("the loop returns or raises")


def _asked(engine: sa.Engine, landed: Body[bool]) -> bool:
    with engine.begin() as connection:
        return landed(connection)


def _attempts() -> stamina._core._RetryContextIterator:
    return stamina.retry_context(
        on=(TryAgain, CommitUnknown),
        attempts=None,
        timeout=REDO_S,
        wait_initial=_FIRST_PAUSE_S,
        wait_max=_LONGEST_PAUSE_S,
        wait_jitter=_FIRST_PAUSE_S,
    )
