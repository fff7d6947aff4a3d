"""Undo: a run's flags are taken back from the reviewers, as far as no person touched them, and what they superseded stands again.

The first transaction marks the run: from then on reviewers, and runs that decide, see none of its untouched flags, so a half-done
undo is no half of anything to them. Then its accounts are gone through in key order, each with all that hangs on its flag in one
transaction; the last one sets ``undone_at``. There is no lease: a run that is released is never released again, each step reads
what stands under the queue's lock, and done twice, or by two at once, it changes nothing the second time.

A withdrawn flag stays as a tombstone. Nobody's memory holds it, and a later run may flag its account again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.database import clock, read, transact
from batchscore.desk import Happened
from batchscore.errors import Refused
from batchscore.failpoints import Point, reach
from batchscore.flag import TOUCHED, FlagState, ReleasedAs
from batchscore.ports import LeftFlag, RunRow, Undo
from batchscore.store.audit import AuditTrail, Done
from batchscore.store.flags import lock_queue
from batchscore.store.outbox import Change, append_events
from batchscore.store.rows import account_id_of
from batchscore.store.tables import audit, counts_as_evidence, dispositions_table, flags_table, runs
from batchscore.store.turning import Turn, take_turns, turns_at

ACCOUNTS_A_STATEMENT: Final = 500
ACCOUNTS_A_TRANSACTION = 10_000  # tests make it smaller
_FIRST: Final = object()

_flags: Final = flags_table("raw")
_decided: Final = dispositions_table("raw")
_OWN: Final = (_flags.c.account_id, _flags.c.state, _flags.c.overtaken_by)


@dataclass(frozen=True, kw_only=True, slots=True)
class Undoing:
    """Who wants the undo, and why; where it is recorded, and by which clock: the database's."""

    by: str
    why: str
    trail: AuditTrail
    now: sa.ColumnElement[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
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
class _Page:
    """Accounts of the run in one queue, in key order; ``last`` is where the next page begins, None after the last one."""

    steps: tuple[_Step, ...]
    left: tuple[LeftFlag, ...]
    last: Any


def undo_of(engine: sa.Engine, row: RunRow) -> Undo:
    """What an undo of the run would do, or did. Reads only; a page of accounts at a time.

    Raises:
        Refused: ``nothing_to_undo``: the run released nothing.
    """
    refuse_unreleased(row)
    n_to_withdraw = n_to_restore = n_to_turn = 0
    left: list[LeftFlag] = []
    for queue in read(engine, lambda connection: _queues(connection, row.run_id), where="store"):
        for page in _pages(engine, row.run_id, queue):
            n_to_withdraw += sum(step.withdrawn for step in page.steps)
            n_to_restore += sum(step.heir is not None for step in page.steps)
            n_to_turn += sum(len(step.turns) for step in page.steps)
            left += page.left
    states, n_restored, n_turned = read(engine, lambda connection: _counted(connection, row.run_id), where="store")
    n_evidence = read(engine, lambda connection: _evidence(connection, row.run_id), where="store")
    return Undo(
        run_id=row.run_id,
        released_at=row.released_at,
        begun_at=row.undo_begun_at,
        undone_at=row.undone_at,
        by=row.undone_by,
        why=row.undone_why,
        n_withdrawn=states.get(FlagState.WITHDRAWN, 0) + n_to_withdraw,
        n_restored=n_restored + n_to_restore,
        n_overtaken=states.get(FlagState.OVERTAKEN, 0),
        n_evidence=n_evidence,
        n_turned=n_turned + n_to_turn,
        left=tuple(left),
    )


def apply_undo(engine: sa.Engine, row: RunRow, undoing: Undoing) -> None:
    """Do it, from wherever an earlier one stopped; nothing when it is done.

    Raises:
        Refused: ``nothing_to_undo``: the run released nothing.
    """
    refuse_unreleased(row)
    begun_by = transact(engine, lambda connection: _begin(connection, row.run_id, undoing), where="store")
    if begun_by is None:
        return
    reach(Point.UNDO_BEGUN)
    undoing = replace(undoing, by=begun_by)
    for queue in read(engine, lambda connection: _queues(connection, row.run_id), where="store"):
        after: Any = _FIRST
        while after is not None:
            after = transact(engine, _Transaction(row.run_id, queue, after, undoing), where="store")
            reach(Point.UNDO_WITHDRAWN)
    transact(engine, lambda connection: _end(connection, row.run_id, undoing), where="store")
    reach(Point.UNDONE)


def refuse_unreleased(row: RunRow) -> None:
    """Raise Refused ``nothing_to_undo`` for a run that put nothing before the reviewers."""
    if row.released_at is None or row.plan.spec.release == "none":
        unfinished = row.released_at is None and row.plan.spec.release != "none"
        raise Refused(
            "nothing_to_undo",
            "the run has not released its flags: reviewers see none of them" if unfinished else "the run releases nothing",
            where=f"run {row.run_id}",
            remedy="leave it as it is: what is not released is seen by nobody",
        )


def _begin(connection: sa.Connection, run_id: str, undoing: Undoing) -> str | None:
    """Mark the run; who began the undo, or None when it is over."""
    held = _locked(connection, run_id)
    if held.undone_at is not None:
        return None
    if held.undo_begun_at is not None:
        return str(held.undone_by)
    begun = {"undo_begun_at": undoing.now, "undone_by": undoing.by, "undone_why": undoing.why}
    connection.execute(runs.update().where(runs.c.run_id == run_id).values(**begun))
    undoing.trail.append(connection, [Done(act=Act.UNDO_BEGUN, who=undoing.by, run_id=run_id, detail=undoing.why)])
    return undoing.by


def _end(connection: sa.Connection, run_id: str, undoing: Undoing) -> None:
    if _locked(connection, run_id).undone_at is None:
        connection.execute(runs.update().where(runs.c.run_id == run_id).values(undone_at=undoing.now))
        states, n_restored, n_turned = _counted(connection, run_id)
        said = f"{states.get(FlagState.WITHDRAWN, 0)} withdrawn, {n_restored} restored, {n_turned} evidence turned"
        undoing.trail.append(connection, [Done(act=Act.UNDONE, who=undoing.by, run_id=run_id, detail=said)])


def _locked(connection: sa.Connection, run_id: str) -> Any:
    columns = (runs.c.undo_begun_at, runs.c.undone_at, runs.c.undone_by)
    return connection.execute(sa.select(*columns).where(runs.c.run_id == run_id).with_for_update()).one()


class _Transaction:
    """One transaction's accounts. Locks in the order of all: the run's row, the queue's, flags by key, the trail's head."""

    def __init__(self, run_id: str, queue: str, after: Any, undoing: Undoing) -> None:
        self._run_id, self._queue, self._after, self._undoing = run_id, queue, after, undoing

    def __call__(self, connection: sa.Connection) -> Any:
        """Where the next transaction begins; None after the last account."""
        _locked(connection, self._run_id)
        lock_queue(connection, self._queue)
        steps: list[_Step] = []
        at = clock(connection, self._undoing.now)
        after = self._after
        for first in range(0, ACCOUNTS_A_TRANSACTION, ACCOUNTS_A_STATEMENT):
            n = min(ACCOUNTS_A_STATEMENT, ACCOUNTS_A_TRANSACTION - first)
            page = _page(connection, self._run_id, self._queue, after, n, locked=True)
            _take(connection, self._run_id, self._queue, page.steps, at)
            steps += page.steps
            after = page.last
            if after is None:
                break
        _record(connection, self._run_id, self._queue, steps, self._undoing, at)
        return after


def take_back(connection: sa.Connection, run_id: str, queue: str, ids: Sequence[Any], undoing: Undoing, at: int) -> None:
    """Do now what an undo of the run would have done at these accounts, had no person been at them. Needs the queue's lock."""
    own = connection.execute(sa.select(*_OWN).where(_of(queue, ids), _flags.c.run_id == run_id)).all()
    steps = _steps(connection, run_id, queue, own)
    _take(connection, run_id, queue, steps, at)
    _record(connection, run_id, queue, steps, undoing, at)


def _record(connection: sa.Connection, run_id: str, queue: str, steps: Sequence[_Step], undoing: Undoing, at: int) -> None:
    undoing.trail.append(connection, list(_said(run_id, undoing.by, steps)))
    append_events(connection, list(_changes(run_id, undoing.by, queue, steps)), at)


def _said(run_id: str, by: str, steps: Iterable[_Step]) -> Iterator[Done]:
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


def _changes(run_id: str, by: str, queue: str, steps: Iterable[_Step]) -> Iterator[Change]:
    for step in steps:
        if step.withdrawn:
            yield Change(Happened.WITHDRAWN, by, queue, step.account_id, run_id, FlagState.WITHDRAWN)
        if step.heir is not None and step.heir_seen:
            yield Change(Happened.RESTORED, by, queue, step.account_id, step.heir, FlagState.OPEN)
        for turn in step.turns:
            if turn.seen:
                yield Change(Happened(turn.becomes), by, queue, step.account_id, turn.run_id, FlagState.OVERTAKEN)


def _take(connection: sa.Connection, run_id: str, queue: str, steps: Sequence[_Step], at: int) -> None:
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


def _pages(engine: sa.Engine, run_id: str, queue: str) -> Iterator[_Page]:
    after: Any = _FIRST
    while after is not None:
        page = read(engine, _Look(run_id, queue, after), where="store")
        yield page
        after = page.last


class _Look:
    """One page, only read."""

    def __init__(self, run_id: str, queue: str, after: Any) -> None:
        self._run_id, self._queue, self._after = run_id, queue, after

    def __call__(self, connection: sa.Connection) -> _Page:
        return _page(connection, self._run_id, self._queue, self._after, ACCOUNTS_A_STATEMENT, locked=False)


def _page(connection: sa.Connection, run_id: str, queue: str, after: Any, n: int, *, locked: bool) -> _Page:
    """``n`` accounts of the run after that one. Locked, nobody changes its flags until the transaction ends."""
    query = sa.select(*_OWN).where(_flags.c.queue == queue, _flags.c.run_id == run_id).order_by(_flags.c.account_id).limit(n)
    if after is not _FIRST:
        query = query.where(_flags.c.account_id > after)
    own = connection.execute(query.with_for_update() if locked else query).all()
    return _Page(
        steps=tuple(_steps(connection, run_id, queue, own)),
        left=tuple(
            LeftFlag(queue=queue, account_id=account_id_of(row.account_id), state=row.state)
            for row in own
            if row.state in TOUCHED
        ),
        last=own[-1].account_id if len(own) == n else None,
    )


def _steps(connection: sa.Connection, run_id: str, queue: str, own: Sequence[Any]) -> list[_Step]:
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
    whole = (replace(step or _Step(account_id=one), turns=turns.get(one, ())) for one, step in steps.items())
    return [step for step in whole if step.withdrawn or step.stands is not None or step.turns]


def _stands(own: Any, step: _Step | None, others: Sequence[Any]) -> str | None:
    """The run whose flag stands at the account once the step is done, where the run's own said something of it; else None."""
    before = next((row.run_id for row in others if row.open_marker == 1), None)
    stands = before or (step.heir if step is not None else None)
    added = own.state == FlagState.OVERTAKEN and own.overtaken_by == stands
    return stands if added or step is not None else None


def _step(run_id: str, own: Any, others: Sequence[Any]) -> _Step | None:
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
    return _Step(
        account_id=own.account_id, withdrawn=withdrawn, heir=heir, heir_seen=heir_seen, stands=stands if gave_way else None
    )


def _of(queue: str, ids: Sequence[Any]) -> sa.ColumnElement[bool]:
    return (_flags.c.queue == queue) & _flags.c.account_id.in_(ids)


def _queues(connection: sa.Connection, run_id: str) -> tuple[str, ...]:
    query = sa.select(_flags.c.queue).distinct().where(_flags.c.run_id == run_id).order_by(_flags.c.queue)
    return tuple(connection.execute(query).scalars())


def _counted(connection: sa.Connection, run_id: str) -> tuple[dict[str, int], int, int]:
    """How many flags of the run stand in each state, and how many of other runs its undo restored, and turned, so far."""
    by_state = sa.select(_flags.c.state, sa.func.count().label("n")).where(_flags.c.run_id == run_id).group_by(_flags.c.state)
    by_act = sa.select(audit.c.act, sa.func.count().label("n")).where(audit.c.run_id == run_id).group_by(audit.c.act)
    states: dict[str, int] = {row.state: row.n for row in connection.execute(by_state)}
    acts: dict[str, int] = {row.act: row.n for row in connection.execute(by_act)}
    return states, acts.get(Act.RESTORED, 0), acts.get(Act.TURNED, 0)


def _evidence(connection: sa.Connection, run_id: str) -> int:
    """How many flags of other runs the run added evidence to on which no person decided: with the run that is gone."""
    decided_on = (
        sa.select(_decided.c.run_id)
        .where(_decided.c.queue == _flags.c.queue, _decided.c.account_id == _flags.c.account_id)
        .where(_decided.c.run_id == _flags.c.overtaken_by, _decided.c.evidence_run == run_id)
        .exists()
    )
    added = (_flags.c.state == FlagState.OVERTAKEN.value) & counts_as_evidence(_flags)
    query = sa.select(sa.func.count()).select_from(_flags).where(_flags.c.run_id == run_id, added, ~decided_on)
    return int(connection.execute(query).scalar_one())
