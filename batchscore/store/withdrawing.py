"""What an undo does at some accounts of a queue: a run's untouched flags are withdrawn, and what they superseded stands again.

Whoever takes the steps found them under the lock of the queue's row, and holds it still. Taken twice, they change nothing the
second time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.desk import Happened
from batchscore.failpoints import Point, reach
from batchscore.flag import TOUCHED, FlagState, ReleasedAs
from batchscore.ports import LeftFlag
from batchscore.store.audit import AuditTrail, Done
from batchscore.store.outbox import Change, append_events
from batchscore.store.rows import account_id_of
from batchscore.store.tables import flags_table, runs
from batchscore.store.turning import Turn, take_turns, turns_at

FIRST: Final = object()  # where a queue's first page begins

_flags: Final = flags_table("raw")
_OWN: Final = (_flags.c.account_id, _flags.c.state, _flags.c.overtaken_by)


@dataclass(frozen=True, kw_only=True, slots=True)
class Undoing:
    """Who wants the undo, and why; where it is recorded, and by which clock: the database's."""

    by: str
    why: str
    trail: AuditTrail
    now: sa.ColumnElement[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is done at one account of a queue.

    ``withdrawn``: the run's own flag is taken back. ``heir``: the run whose flag is opened in its place; ``heir_seen``: it is
    released, so that reviewers see that at once. ``stands``: the run that the other flags, which gave way to this one, have
    given way to instead. ``turns``: what other runs say of the flag that stands, where that changes now that this run is gone.
    """

    account_id: Any
    withdrawn: bool = False
    heir: str | None = None
    heir_seen: bool = False
    stands: str | None = None
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Accounts of the run in one queue, in key order; ``last`` is where the next page begins, None after the last one."""

    steps: tuple[Step, ...]
    left: tuple[LeftFlag, ...]
    last: Any


def page_of(connection: sa.Connection, run_id: str, queue: str, after: Any, n: int, *, locked: bool) -> Page:
    """``n`` accounts of the run after that one. Locked, nobody changes its flags until the transaction ends."""
    query = sa.select(*_OWN).where(_flags.c.queue == queue, _flags.c.run_id == run_id).order_by(_flags.c.account_id).limit(n)
    if after is not FIRST:
        query = query.where(_flags.c.account_id > after)
    own = connection.execute(query.with_for_update() if locked else query).all()
    return Page(
        steps=tuple(_steps(connection, run_id, queue, own)),
        left=tuple(
            LeftFlag(queue=queue, account_id=account_id_of(row.account_id), state=row.state)
            for row in own
            if row.state in TOUCHED
        ),
        last=own[-1].account_id if len(own) == n else None,
    )


def _steps(connection: sa.Connection, run_id: str, queue: str, own: Sequence[Any]) -> list[Step]:
    """What is to be done at the accounts of these flags of the run."""
    others: defaultdict[Any, list[Any]] = defaultdict(list)
    if own:
        of_account = _of(queue, [row.account_id for row in own]) & (_flags.c.run_id != run_id)
        told = (_flags.c.overtaken_by == run_id) | (_flags.c.open_marker == 1)
        there = (
            sa.select(_flags.c.account_id, _flags.c.run_id, _flags.c.open_marker, _flags.c.opened_at)
            .add_columns(_flags.c.overtaken_by, runs.c.released_at, runs.c.undo_begun_at)
            .select_from(_flags.join(runs, runs.c.run_id == _flags.c.run_id))
            .where(of_account, told)
        )
        for row in connection.execute(there):
            others[row.account_id].append(row)
    steps = {row.account_id: _step(run_id, row, others[row.account_id]) for row in own}
    standing = {row.account_id: _stands(row, steps[row.account_id], others[row.account_id]) for row in own}
    turns = turns_at(connection, queue, run_id, {one: found for one, found in standing.items() if found is not None})
    whole = (replace(step or Step(account_id=one), turns=turns.get(one, ())) for one, step in steps.items())
    return [step for step in whole if step.withdrawn or step.stands is not None or step.turns]


def _stands(own: Any, step: Step | None, others: Sequence[Any]) -> str | None:
    """The run whose flag stands at the account once the step is done, where the run's own said something of it; else None."""
    before = next((row.run_id for row in others if row.open_marker == 1), None)
    stands = before or (step.heir if step is not None else None)
    added = own.state == FlagState.OVERTAKEN and own.overtaken_by == stands
    return stands if added or step is not None else None


def _step(run_id: str, own: Any, others: Sequence[Any]) -> Step | None:
    """What is to be done at one account; None when nothing is.

    The heir is the flag that would stand if the run had never been: of those that gave way, the first that was released. One of a
    run that has not released, and may yet be resumed, comes after those; one of an undone run is none.
    """
    if own.state not in {FlagState.OPEN, FlagState.EXPIRED, FlagState.WITHDRAWN}:
        return None
    gave_way = [row for row in others if row.overtaken_by == run_id]
    standing = next((row.run_id for row in others if row.open_marker == 1), None)
    heir, heir_seen = None, False
    if standing is None:
        heirs = [row for row in gave_way if row.undo_begun_at is None]
        heirs.sort(key=lambda row: (row.released_at is None, row.opened_at, row.run_id))
        if heirs:
            heir, heir_seen = heirs[0].run_id, heirs[0].released_at is not None
    stands = standing or heir
    withdrawn = own.state != FlagState.WITHDRAWN
    if not withdrawn and (not gave_way or stands is None):
        return None
    return Step(
        account_id=own.account_id, withdrawn=withdrawn, heir=heir, heir_seen=heir_seen, stands=stands if gave_way else None
    )


def take_steps(connection: sa.Connection, run_id: str, queue: str, steps: Sequence[Step], at: int) -> None:
    """Do the steps in a few statements. Withdrawing comes first: an account has one open flag in a queue."""
    withdrawn = [step.account_id for step in steps if step.withdrawn]
    heirs: defaultdict[tuple[str, bool], list[Any]] = defaultdict(list)
    stands: defaultdict[str, list[Any]] = defaultdict(list)
    for step in steps:
        if step.heir is not None:
            heirs[step.heir, step.heir_seen].append(step.account_id)
        if step.stands is not None:
            stands[step.stands].append(step.account_id)
    if withdrawn:
        values = {"state": FlagState.WITHDRAWN.value, "open_marker": None, "closed_at": at}
        connection.execute(_flags.update().where(_of(queue, withdrawn), _flags.c.run_id == run_id).values(**values))
    reach(Point.UNDO_WITHDRAWING)
    for (heir, seen), ids in sorted(heirs.items()):
        values = {"state": FlagState.OPEN.value, "open_marker": 1, "closed_at": None, "overtaken_by": None}
        if not seen:  # its release is still to come, and will say that it opened
            values["released_as"] = ReleasedAs.OPENED.value
        connection.execute(_flags.update().where(_of(queue, ids), _flags.c.run_id == heir).values(**values))
    for standing, ids in sorted(stands.items()):
        gave_way = _of(queue, ids) & (_flags.c.overtaken_by == run_id)
        connection.execute(_flags.update().where(gave_way).values(overtaken_by=standing))
    take_turns(connection, queue, {step.account_id: step.turns for step in steps}, at)


def record_steps(connection: sa.Connection, run_id: str, queue: str, steps: Sequence[Step], undoing: Undoing, at: int) -> None:
    """Write the steps into the trail and the outbox, as of ``at``, by the database's clock in microseconds."""
    undoing.trail.append(connection, list(_said(run_id, undoing.by, steps)))
    append_events(connection, list(_changes(run_id, undoing.by, queue, steps)), at)


def _said(run_id: str, by: str, steps: Iterable[Step]) -> Iterator[Done]:
    for step in steps:
        account_id = account_id_of(step.account_id)
        if step.withdrawn:
            yield Done(act=Act.WITHDRAWN, who=by, run_id=run_id, account_id=account_id)
        if step.heir is not None:
            detail = f"the flag of {step.heir}"
            yield Done(act=Act.RESTORED, who=by, run_id=run_id, account_id=account_id, detail=detail)
        for turn in step.turns:
            detail = f"that of {turn.run_id}: {turn.becomes}"
            yield Done(act=Act.TURNED, who=by, run_id=run_id, account_id=account_id, detail=detail)


def _changes(run_id: str, by: str, queue: str, steps: Iterable[Step]) -> Iterator[Change]:
    for step in steps:
        if step.withdrawn:
            yield Change(Happened.WITHDRAWN, by, queue, step.account_id, run_id, FlagState.WITHDRAWN)
        if step.heir is not None and step.heir_seen:
            yield Change(Happened.RESTORED, by, queue, step.account_id, step.heir, FlagState.OPEN)
        for turn in step.turns:
            if turn.seen:
                yield Change(Happened(turn.becomes), by, queue, step.account_id, turn.run_id, FlagState.OVERTAKEN)


def take_back(connection: sa.Connection, run_id: str, queue: str, ids: Sequence[Any], undoing: Undoing, at: int) -> None:
    """Do now what an undo of the run would have done at these accounts, had no person been at them. Needs the queue's lock."""
    own = connection.execute(sa.select(*_OWN).where(_of(queue, ids), _flags.c.run_id == run_id)).all()
    steps = _steps(connection, run_id, queue, own)
    take_steps(connection, run_id, queue, steps, at)
    record_steps(connection, run_id, queue, steps, undoing, at)


def _of(queue: str, ids: Sequence[Any]) -> sa.ColumnElement[bool]:
    return (_flags.c.queue == queue) & _flags.c.account_id.in_(ids)
