"""Undo: a run's flags are taken back from the reviewers, as far as no person touched them, and what they superseded stands again.

The first transaction marks the run: from then on reviewers, and runs that decide, see none of its untouched flags, so a half-done
undo is no half of anything to them. Then its accounts are gone through in key order, each with all that hangs on its flag in one
transaction; the last one sets ``undone_at``. There is no lease: a run that is released is never released again, each step reads
what stands under the queue's lock, and done twice, or by two at once, it changes nothing the second time.

A withdrawn flag stays as a tombstone. Nobody's memory holds it, and a later run may flag its account again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from batchscore.audit import Act
from batchscore.database import clock, read, transact
from batchscore.errors import Refused
from batchscore.failpoints import Point, reach
from batchscore.flag import FlagState
from batchscore.ports import LeftFlag, RunRow, Undo
from batchscore.store.audit import Done
from batchscore.store.flags import lock_queue
from batchscore.store.tables import audit, counts_as_evidence, dispositions_table, flags_table, runs
from batchscore.store.withdrawing import FIRST, Page, Step, Undoing, page_of, record_steps, take_steps

ACCOUNTS_A_STATEMENT: Final = 500
ACCOUNTS_A_TRANSACTION = 10_000  # tests make it smaller

_flags: Final = flags_table("raw")
_decided: Final = dispositions_table("raw")


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
        after: Any = FIRST
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
        steps: list[Step] = []
        at = clock(connection, self._undoing.now)
        after = self._after
        for first in range(0, ACCOUNTS_A_TRANSACTION, ACCOUNTS_A_STATEMENT):
            n = min(ACCOUNTS_A_STATEMENT, ACCOUNTS_A_TRANSACTION - first)
            page = page_of(connection, self._run_id, self._queue, after, n, locked=True)
            take_steps(connection, self._run_id, self._queue, page.steps, at)
            steps += page.steps
            after = page.last
            if after is None:
                break
        record_steps(connection, self._run_id, self._queue, steps, self._undoing, at)
        return after


def _pages(engine: sa.Engine, run_id: str, queue: str) -> Iterator[Page]:
    after: Any = FIRST
    while after is not None:
        page = read(engine, _Look(run_id, queue, after), where="store")
        yield page
        after = page.last


class _Look:
    """One page, only read."""

    def __init__(self, run_id: str, queue: str, after: Any) -> None:
        self._run_id, self._queue, self._after = run_id, queue, after

    def __call__(self, connection: sa.Connection) -> Page:
        return page_of(connection, self._run_id, self._queue, self._after, ACCOUNTS_A_STATEMENT, locked=False)


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
