"""Claims: one reviewer at a flag, whoever else reaches for it; given back by them, or by time.

A claim takes no lock of the queue: flags are locked by their keys, and those that another transaction holds are passed over
(SKIP LOCKED; SQLite has one writer anyway). So fifty who claim at once get fifty different flags, and none waits for another's
choice. Giving back takes the queue's lock first, since the flag of a run that was undone meanwhile is withdrawn then, with all
that hangs on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.database import clock
from batchscore.desk import Happened, Reviewed
from batchscore.flag import FlagState
from batchscore.store.audit import AuditTrail, Done
from batchscore.store.flags import lock_queue
from batchscore.store.outbox import Change, append_events
from batchscore.store.reviewed import IDS_A_STATEMENT, Key, accounts, claims, dispositions, flags
from batchscore.store.rows import account_id_of
from batchscore.store.tables import runs
from batchscore.store.withdrawing import Undoing, take_back

RETURNS_A_TRANSACTION: Final = 1_000
_CANDIDATES: Final = 200  # looked at for one that is free, before looking again


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """What writing at the desk needs of the store: its clock in seconds, its trail, the largest integer its ids may be."""

    now: sa.ColumnElement[Any]
    trail: AuditTrail
    largest_id: int

    def clock(self, connection: sa.Connection) -> int:
        """Microseconds since 1970 by the database's clock."""
        return clock(connection, self.now)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """What a reviewer reaches for: the ``n`` best flags of a queue, of a group if they name one, or those accounts' (as held)."""

    queue: str
    by: str
    n: int
    for_us: int
    group: str | None = None
    ids: tuple[Any, ...] | None = None


class What(NamedTuple):
    """What was done in a queue, and by whom."""

    act: Happened
    by: str
    queue: str


def claim(connection: sa.Connection, desk: Desk, reach: Reach) -> list[Reviewed]:
    """Claim up to ``n`` flags that are free; those that were claimed, best first, after those that were theirs already."""
    at = desk.clock(connection)
    mine = _longer(connection, desk, reach, at)
    reach = replace(reach, n=reach.n - len(mine))
    # Flags that are locked may only have been looked at by others, so whoever found nothing free waits for them once.
    fresh = (_free(connection, reach, skip_locked=True) or _free(connection, reach, skip_locked=False)) if reach.n else []
    _take(connection, desk, reach, fresh, at)
    got = [*mine, *fresh]
    found = accounts(connection, reach.queue, [account_id for account_id, _ in got], at)
    return [found[account_id].flags[run_id] for account_id, run_id in got]


def _longer(connection: sa.Connection, desk: Desk, reach: Reach, at: int) -> list[Key]:
    """Of the accounts that are named, the flags that they have claimed already; they are theirs for as long anew."""
    if reach.ids is None:
        return []
    ours = (claims.c.reviewer == reach.by) & (claims.c.until > at)
    there = sa.select(claims.c.account_id, claims.c.run_id).where(claims.c.queue == reach.queue, ours)
    there = there.where(claims.c.ended_at.is_(None), claims.c.account_id.in_(reach.ids)).order_by(claims.c.account_id)
    keys = _still(connection, reach.queue, [(row.account_id, row.run_id) for row in connection.execute(there)], ours)
    for part in _parts(keys):
        theirs = (claims.c.queue == reach.queue) & _is_one(claims, part)
        connection.execute(claims.update().where(theirs).values(until=at + reach.for_us))
    if keys:
        told = [(key, FlagState.CLAIMED) for key in keys]
        record(connection, desk, What(Happened.CLAIMED, reach.by, reach.queue), told, at)
    return keys


def _free(connection: sa.Connection, reach: Reach, *, skip_locked: bool) -> list[Key]:
    """The best flags that nobody is at, locked by now."""
    got: list[Key] = []
    offset = 0
    while True:
        candidates = _candidates(connection, reach, offset)
        position = 0
        while position < len(candidates) and len(got) < reach.n:
            part = candidates[position : position + reach.n - len(got)]
            got += _locked(connection, reach.queue, part, skip_locked=skip_locked)
            position += len(part)
        if len(got) >= reach.n or len(candidates) < _CANDIDATES:
            return got
        offset += _CANDIDATES


def _candidates(connection: sa.Connection, reach: Reach, offset: int) -> list[Key]:
    """Flags before the reviewers that nobody is at, best first, as they stand now; nothing is locked."""
    first_by = (
        sa.select(dispositions.c.reviewer)
        .where(dispositions.c.queue == flags.c.queue, dispositions.c.account_id == flags.c.account_id)
        .where(dispositions.c.run_id == flags.c.run_id, dispositions.c.reviewer == reach.by)
        .exists()
    )
    waits_for_another = (flags.c.state == FlagState.AWAITING.value) & ~first_by
    query = (
        sa.select(flags.c.account_id, flags.c.run_id)
        .select_from(flags.join(runs, runs.c.run_id == flags.c.run_id))
        .where(flags.c.queue == reach.queue, flags.c.open_marker == 1, runs.c.released_at.is_not(None))
        .where(((flags.c.state == FlagState.OPEN.value) & runs.c.undo_begun_at.is_(None)) | waits_for_another)
        .order_by(flags.c.as_of.desc(), flags.c.rank, flags.c.run_id)
        .limit(_CANDIDATES)
        .offset(offset)
    )
    if reach.group is not None:
        query = query.where(flags.c.group_key == reach.group)
    if reach.ids is not None:
        query = query.where(flags.c.account_id.in_(reach.ids))
    return [(row.account_id, row.run_id) for row in connection.execute(query)]


def _locked(connection: sa.Connection, queue: str, keys: Sequence[Key], *, skip_locked: bool) -> list[Key]:
    """Those of the flags that are free still, in the same order; locked by now."""
    same = sa.or_(*((flags.c.account_id == account_id) & (flags.c.run_id == run_id) for account_id, run_id in keys))
    free = flags.c.state.in_([FlagState.OPEN.value, FlagState.AWAITING.value])
    query = sa.select(flags.c.account_id, flags.c.run_id).where(flags.c.queue == queue, same, free)
    rows = connection.execute(query.with_for_update(skip_locked=skip_locked)).all()
    held = {(row.account_id, row.run_id) for row in rows}
    return [key for key in keys if key in held]


def _take(connection: sa.Connection, desk: Desk, reach: Reach, got: Sequence[Key], at: int) -> None:
    if not got:
        return
    values = {"reviewer": reach.by, "claimed_at": at, "until": at + reach.for_us, "ended_at": None}
    known = {(row.account_id, row.run_id) for row in connection.execute(_claims_of(reach.queue, got))}
    for account_id, run_id in got:
        if (account_id, run_id) in known:
            of_flag = (claims.c.queue == reach.queue) & (claims.c.account_id == account_id) & (claims.c.run_id == run_id)
            connection.execute(claims.update().where(of_flag).values(**values))
    fresh = [
        {"queue": reach.queue, "account_id": account_id, "run_id": run_id, **values}
        for account_id, run_id in got
        if (account_id, run_id) not in known
    ]
    if fresh:
        connection.execute(claims.insert(), fresh)
    set_state(connection, reach.queue, got, {"state": FlagState.CLAIMED.value})
    told = [(key, FlagState.CLAIMED) for key in got]
    record(connection, desk, What(Happened.CLAIMED, reach.by, reach.queue), told, at)


def return_claims(
    connection: sa.Connection, desk: Desk, queue: str, by: str | None, ids: Sequence[Any] | None = None
) -> list[Any]:
    """Give back the claims of ``by`` (None: those that have run out), of all accounts or of those; the accounts whose were.

    A bounded number at a time: none is left when the answer is empty. The flag of an undone run is withdrawn.
    """
    lock_queue(connection, queue)
    at = desk.clock(connection)
    ours = claims.c.until <= at if by is None else claims.c.reviewer == by
    query = sa.select(claims.c.account_id, claims.c.run_id, claims.c.reviewer).where(claims.c.queue == queue, ours)
    query = query.where(claims.c.ended_at.is_(None)).order_by(claims.c.account_id, claims.c.run_id).limit(RETURNS_A_TRANSACTION)
    if ids is not None:
        query = query.where(claims.c.account_id.in_(ids))
    there = connection.execute(query).all()
    keys = _still(connection, queue, [(row.account_id, row.run_id) for row in there], ours)
    if not keys:
        return []
    for part in _parts(keys):
        connection.execute(claims.update().where(claims.c.queue == queue, _is_one(claims, part)).values(ended_at=at))
    awaiting = {(row.account_id, row.run_id) for row in connection.execute(_dispositions_of(queue, keys))}
    backs: defaultdict[FlagState, list[Key]] = defaultdict(list)
    for key in keys:
        backs[FlagState.AWAITING if key in awaiting else FlagState.OPEN].append(key)
    for state, of_state in backs.items():
        set_state(connection, queue, of_state, {"state": state.value})
    who = {(row.account_id, row.run_id): row.reviewer for row in there}
    for reviewer in sorted({who[key] for key in keys}):
        told = [(key, state) for state, of_state in backs.items() for key in of_state if who[key] == reviewer]
        record(connection, desk, What(Happened.RETURNED, reviewer, queue), told, at)
    _withdraw_undone(connection, desk, queue, backs[FlagState.OPEN], at)
    return [account_id_of(account_id) for account_id, _ in keys]


def _still(connection: sa.Connection, queue: str, keys: Sequence[Key], ours: sa.ColumnElement[bool]) -> list[Key]:
    """Those whose flag is claimed still, once nobody else can change it: a decision may have been first."""
    found: list[Key] = []
    for part in _parts(keys):
        claimed = sa.select(flags.c.account_id, flags.c.run_id).where(flags.c.queue == queue, _is_one(flags, part))
        claimed = claimed.where(flags.c.state == FlagState.CLAIMED.value).order_by(flags.c.account_id, flags.c.run_id)
        held = {(row.account_id, row.run_id) for row in connection.execute(claimed.with_for_update())}
        alive = sa.select(claims.c.account_id, claims.c.run_id).where(claims.c.queue == queue, _is_one(claims, part), ours)
        there = {(row.account_id, row.run_id) for row in connection.execute(alive.where(claims.c.ended_at.is_(None)))}
        found += [key for key in part if key in held & there]
    return found


def _withdraw_undone(connection: sa.Connection, desk: Desk, queue: str, keys: Sequence[Key], at: int) -> None:
    """An undo left these flags to their reviewers, who give them back: they go as the rest of their run went."""
    by_run: defaultdict[str, list[Any]] = defaultdict(list)
    for account_id, run_id in keys:
        by_run[run_id].append(account_id)
    if not by_run:
        return
    query = sa.select(runs.c.run_id, runs.c.undone_by).where(runs.c.run_id.in_(by_run), runs.c.undo_begun_at.is_not(None))
    for row in connection.execute(query).all():
        undoing = Undoing(by=str(row.undone_by), why="", trail=desk.trail, now=desk.now)
        take_back(connection, row.run_id, queue, by_run[row.run_id], undoing, at)


def set_state(connection: sa.Connection, queue: str, keys: Iterable[Key], values: dict[str, Any]) -> None:
    """Update flags of a queue, in a few statements."""
    by_run: defaultdict[str, list[Any]] = defaultdict(list)
    for account_id, run_id in keys:
        by_run[run_id].append(account_id)
    for run_id, ids in sorted(by_run.items()):
        for first in range(0, len(ids), IDS_A_STATEMENT):
            part = flags.c.account_id.in_(ids[first : first + IDS_A_STATEMENT])
            connection.execute(flags.update().where(flags.c.queue == queue, flags.c.run_id == run_id, part).values(**values))


def record(
    connection: sa.Connection, desk: Desk, what: What, told: Sequence[tuple[Key, FlagState]], at: int, digests: Sequence[str] = ()
) -> None:
    """One entry of the trail and one event for each flag, with what it became. ``digests``: of rows that say so."""
    act, by, queue = what.act, what.by, what.queue
    entries = [
        Done(
            act=Act(act.value),
            who=by,
            run_id=run_id,
            account_id=account_id_of(account_id),
            detail=f"queue {queue}: {state}" + (f", row {digest}" if digest else ""),
        )
        for ((account_id, run_id), state), digest in zip(told, digests or [""] * len(told), strict=True)
    ]
    desk.trail.append(connection, entries)
    append_events(connection, [Change(act, by, queue, key[0], key[1], state) for key, state in told], at)


def _claims_of(queue: str, keys: Sequence[Key]) -> sa.Select[Any]:
    return sa.select(claims.c.account_id, claims.c.run_id).where(claims.c.queue == queue, _is_one(claims, keys))


def _dispositions_of(queue: str, keys: Sequence[Key]) -> sa.Select[Any]:
    columns = (dispositions.c.account_id, dispositions.c.run_id)
    return sa.select(*columns).where(dispositions.c.queue == queue, _is_one(dispositions, keys)).distinct()


def _is_one(table: sa.Table, keys: Sequence[Key]) -> sa.ColumnElement[bool]:
    """Whether a row's account and run are among the keys."""
    by_run: defaultdict[str, list[Any]] = defaultdict(list)
    for account_id, run_id in keys:
        by_run[run_id].append(account_id)
    return sa.or_(*((table.c.run_id == run_id) & table.c.account_id.in_(ids) for run_id, ids in sorted(by_run.items())))


def _parts(keys: Sequence[Key]) -> Iterable[Sequence[Key]]:
    return (keys[first : first + IDS_A_STATEMENT] for first in range(0, len(keys), IDS_A_STATEMENT))
