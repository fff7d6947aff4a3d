"""What people wrote since a run decided, asked at its release: whom a suppression, or a decision, keeps from the reviewers.

Decide saw a frozen memory, and is not asked again; so the run's flags stay those of its decision, and each gets its row. Only
whether that row comes before a person is settled here, by what holds at that moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from batchscore.desk import Happened
from batchscore.flag import AnyFlag, FlagState, ReleasedAs, WrittenFlag
from batchscore.ports import MemoryRead
from batchscore.store.rows import microseconds, stored_id
from batchscore.store.tables import dispositions_table, events_table, flags_table, suppressions

_IDS_A_STATEMENT: Final = 500
_decided: Final = dispositions_table("raw")
_events: Final = events_table("raw")
_flags: Final = flags_table("raw")

Subject = tuple[str, bytes]  # scope and key, as `suppressions` holds them
DecidedOn = frozenset[tuple[Any, str]]  # account ids as the column holds them, and the runs whose flags were decided on


def subjects_of(flag: AnyFlag) -> Iterator[Subject]:
    """What a suppression may name to keep this flag back."""
    yield "account", str(flag.account_id).encode()
    if isinstance(flag, WrittenFlag):
        for scope, key in (("domain", flag.domain), ("segment", flag.segment)):
            if key is not None:
                yield scope, key.encode()


def suppressed_among(
    connection: sa.Connection, now: sa.ColumnElement[Any], queue: str, flags: Mapping[Any, AnyFlag]
) -> frozenset[Any]:
    """Of flags by account id as the column holds it: the accounts of which a suppression of the queue holds."""
    if not flags:
        return frozenset()
    in_force = _in_force(queue, now)
    if connection.execute(sa.select(suppressions.c.scope).where(in_force).limit(1)).first() is None:
        return frozenset()
    named: defaultdict[Subject, list[Any]] = defaultdict(list)
    for account_id, flag in flags.items():
        for subject in subjects_of(flag):
            named[subject].append(account_id)
    found: set[Any] = set()
    for scope in {scope for scope, _ in named}:
        keys = [key for of, key in named if of == scope]
        query = sa.select(suppressions.c.subject).where(in_force, suppressions.c.scope == scope, suppressions.c.subject.in_(keys))
        for subject in connection.execute(query).scalars():
            found.update(named[scope, bytes(subject)])
    return frozenset(found)


def _in_force(queue: str, now: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Of a row of `suppressions`: that it holds, in that queue."""
    return (suppressions.c.queue == queue) & (suppressions.c.until > now * 1_000_000)


def decided_since(connection: sa.Connection, queue: str, ids: Sequence[Any], since: MemoryRead | None) -> DecidedOn:
    """On which of those accounts' flags people decided since memory was read; None: nobody asks.

    The events tell, in the order of commits: by its clock a decision may be older than a memory that saw nothing of it.
    """
    if since is None or not ids:
        return frozenset()
    told, newer = _decided, _decided.c.recorded_at >= microseconds(since.at)
    if since.event is not None:
        told, newer = _events, (_events.c.act == Happened.DECIDED.value) & (_events.c.number > since.event)
    query = sa.select(told.c.account_id, told.c.run_id).where(told.c.queue == queue, told.c.account_id.in_(ids), newer)
    return frozenset((row.account_id, row.run_id) for row in connection.execute(query))


class Late:
    """Flags of a release that suppressions meet after they were inserted, and before anybody saw them.

    ``now``: the database's clock. ``largest``: the largest integer it holds. ``since``: when the run read its memory; None asks
    after every suppression.
    """

    def __init__(self, run_id: str, now: sa.ColumnElement[Any], largest: int, since: MemoryRead | None) -> None:
        self._run_id, self._now, self._largest, self._since = run_id, now, largest, since
        self._of: defaultdict[Subject, list[Any]] = defaultdict(list)
        self._are_text = False

    def noting(self, flags: Iterable[AnyFlag]) -> Iterator[AnyFlag]:
        """The flags on their way, noted by what a suppression may name."""
        for flag in flags:
            self._are_text = isinstance(flag.account_id, str)
            for scope, key in subjects_of(flag):
                if scope != "account":
                    self._of[scope, key].append(stored_id(flag.account_id, self._largest))
            yield flag

    def keep_back(self, connection: sa.Connection, queue: str, at: int) -> None:
        """Keep those back of which a suppression holds; ``at``: the moment. Needs the queue's lock."""
        query = sa.select(suppressions.c.scope, suppressions.c.subject).where(_in_force(queue, self._now))
        if self._since is not None:
            query = query.where(suppressions.c.begins_at >= microseconds(self._since.at))
        ids = sorted({one for row in connection.execute(query) for one in self._named(row.scope, bytes(row.subject))})
        values = {
            "state": FlagState.OVERTAKEN.value, "open_marker": None, "closed_at": at, "released_as": ReleasedAs.SUPPRESSED.value,
        }  # fmt: skip
        for first in range(0, len(ids), _IDS_A_STATEMENT):
            mine = (_flags.c.queue == queue) & _flags.c.account_id.in_(ids[first : first + _IDS_A_STATEMENT])
            mine &= (_flags.c.run_id == self._run_id) & (_flags.c.state == FlagState.OPEN.value)
            connection.execute(_flags.update().where(mine).values(**values))

    def _named(self, scope: str, key: bytes) -> Iterable[Any]:
        """Whom a suppression is about, among those or not."""
        if scope != "account":
            return self._of.get((scope, key), ())
        if self._are_text:
            return (key,)
        account_id = int(key) if key.isdigit() else -1
        is_one = str(account_id).encode() == key and account_id <= self._largest  # no flag can have another, nor be asked for
        return (account_id,) if is_one else ()
