"""The ledger: runs, epochs, leases, partitions, receipts. Every write is one transaction that first checks the epoch.

What each transaction does stands in the module of its subject (`taking`, `laying_out`, `committing`, `counting`, `holding`, …);
here it gets its fence, its clock and its failpoint. Locks are taken in one order: the run's row, then the queue's, then rows
by their keys. A transaction that the database gave up is done again from its start; one whose COMMIT got no answer left its
mark in the run's row, or does not stand.

The allowed changes of a run's state: running → finished, or (given back) held, paused, cancelled, interrupted or failed; and
from each of these → running, taken over, but from paused and cancelled only by way of interrupted, which a person does.
Of a partition's: planned → committed or quarantined, and nothing after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from batchscore.acceptance import Accepted
from batchscore.audit import BY_CHARS
from batchscore.database import now, read, transact
from batchscore.failpoints import Point, reach
from batchscore.flag import AnyFlag
from batchscore.hold import Finding, HoldRow, Subject
from batchscore.plan import Partition, Plan, Reference, Stage, Task
from batchscore.ports import MemoryRead, ReleaseCount, RunHandle, RunRow, Undo
from batchscore.receipt import Receipt
from batchscore.request import WHY_CHARS, Wish
from batchscore.store.accepting import put_accepted
from batchscore.store.audit import AuditTrail
from batchscore.store.committing import accept_receipts, new_receipts
from batchscore.store.counting import FailedAttempt, count_failure, count_suspicion, log_failure
from batchscore.store.fencing import LEASE_S, Fence, Lease
from batchscore.store.flags import ToRelease, release, release_more
from batchscore.store.holding import Approval, put_hold
from batchscore.store.inserting import ReviewDatabase
from batchscore.store.laying_out import all_done_before, fix_layout
from batchscore.store.reader import Reader
from batchscore.store.requests import Ask, landed, put_request
from batchscore.store.rows import largest_id
from batchscore.store.sweeping import put_sweep
from batchscore.store.tables import runs
from batchscore.store.taking import STATE_WHY_CHARS, give_back, row_of, take_run
from batchscore.store.undo import apply_undo
from batchscore.store.withdrawing import Undoing

_EXECUTOR_CHARS: Final = 255


class Ledger:
    """Implements `ports.Store` over an engine; ``folder`` is where outputs lie."""

    def __init__(self, engine: sa.Engine, folder: Path, *, lease_s: float = LEASE_S) -> None:
        self._engine = engine
        self._folder = folder
        self._now = now(engine)
        self._lease = Lease(now=self._now, seconds=lease_s)
        self._fence = Fence(engine, self._lease)
        self._trail = AuditTrail(folder, self._now)
        self._database = ReviewDatabase(now=self._now, largest_id=largest_id(engine), trail=self._trail)

    def reader(self) -> Reader:
        """The same database, for reading."""
        return Reader(self._engine, self._folder)

    def open(self, plan: Plan, *, owner: str, again: bool = False) -> tuple[RunHandle, RunRow]:
        """Create the plan's run, or take over its newest generation; a finished one is returned untaken.

        With ``again`` the next generation of a finished or failed one: a failed one may hold partitions set aside for good.

        Raises:
            Refused: ``run_taken``: another driver's lease has not run out.
            Paused, Cancelled: a person asked that the run should rest.
        """

        def take(connection: sa.Connection) -> tuple[RunHandle, RunRow]:
            return take_run(connection, plan, owner, self._lease, again=again)

        taken = transact(self._engine, take, where="store")
        reach(Point.RUN_OPENED)
        return taken

    def begin_sweep(self, plan: Plan) -> None:
        """Record a sweep, before its run. What it comes to is the run's to say: a watermark is never written apart from it.

        Raises:
            Refused: ``run_taken``: a driver is at another plan of that spec for the same as-of.
        """
        transact(self._engine, lambda connection: put_sweep(connection, plan, self._now), where="store")

    def renew(self, run: RunHandle) -> None:
        """Lengthen the lease. Raises Fenced."""
        self._fence.write_again(run, lambda _connection: None)

    def lay_out(self, run: RunHandle, stage: Stage, laid_out: Sequence[Partition]) -> None:
        """Fix a stage's partitions, once, and commit those whose address was done before, with the receipt it has.

        Raises:
            CommitConflict: the stage is laid out already, otherwise.
        """

        def look(connection: sa.Connection) -> list[Receipt]:
            return all_done_before(connection, self._folder, run, laid_out)

        def fix(connection: sa.Connection) -> None:
            fix_layout(connection, run, stage, laid_out, reused, self._fence.clock(connection))

        reach(Point.STAGE_CUT)
        reused = read(self._engine, look, where="store")  # outside the transaction: files may have to be hashed
        self._fence.write(run, fix)
        reach(Point.STAGE_LAID_OUT)

    def unfinished(self, run: RunHandle, stage: Stage) -> tuple[Partition, ...]:
        """Partitions neither committed nor quarantined, by number."""
        return self.reader().unfinished(run.run_id, stage)

    def commit(self, run: RunHandle, receipts: Sequence[Receipt]) -> tuple[int, ...]:
        """Accept receipts in one transaction; the numbers that are newly committed. Of a call that raises, nothing is kept.

        Raises:
            Fenced: a newer driver has the run.
            CommitConflict, RunFailed: see `new_receipts`.
        """

        def accept(connection: sa.Connection) -> tuple[int, ...]:
            new, at = new_receipts(connection, run, receipts, self._now)
            accept_receipts(connection, run, new, at)
            return tuple(receipt.number for receipt in new)

        committed = self._fence.write(run, accept)
        reach(Point.RECEIPTS_COMMITTED)
        return committed

    def count_failure(self, run: RunHandle, task: Task, reason: str, message: str, *, quarantine_at: int | None) -> bool:
        """Record a failed attempt; with the ``quarantine_at``-th the partition is quarantined. Whether it now is.

        None: the failure says nothing of the partition, and does not count.
        """

        def count(connection: sa.Connection) -> bool:
            failure = FailedAttempt(reason, message, self._fence.clock(connection))
            log_failure(connection, run, task, failure)
            return quarantine_at is not None and count_failure(connection, run, task, failure, quarantine_at)

        aside = self._fence.write(run, count)
        reach(Point.FAILURE_COUNTED)
        return aside

    def count_suspicion(self, run: RunHandle, task: Task, reason: str = "worker_lost") -> int:
        """Record that a worker was lost, or given up, at this partition; how often it has been."""

        def count(connection: sa.Connection) -> int:
            return count_suspicion(connection, run, task, reason, self._fence.clock(connection))

        suspicions = self._fence.write(run, count)
        reach(Point.SUSPICION_COUNTED)
        return suspicions

    def record_decision(self, run: RunHandle, decision: Reference, memory: Reference) -> RunRow:
        """Fix the decision, once; a second call keeps the first. The row as it stands."""

        def fix(connection: sa.Connection) -> RunRow:
            fixed = {"decision_path": decision.path, "decision_sha256": decision.sha256,
                     "memory_path": memory.path, "memory_sha256": memory.sha256}  # fmt: skip
            connection.execute(runs.update().where(runs.c.run_id == run.run_id, runs.c.decision_sha256.is_(None)).values(**fixed))
            return row_of(connection, run.run_id)

        row = self._fence.write(run, fix)
        reach(Point.DECISION_RECORDED)
        return row

    def release(
        self,
        run: RunHandle,
        flags: Iterable[AnyFlag],
        evidence: Iterable[AnyFlag] = (),
        memory: MemoryRead | None = None,
    ) -> ReleaseCount:
        """Insert flags and evidence on others, each in key order, and set ``released_at`` in the last transaction. Repeatable."""
        asked = ToRelease(flags=flags, evidence=evidence, memory=memory)
        return release(run, asked, self._fence, self._database)

    def release_more(self, run_id: str, flags: Iterable[AnyFlag], *, by: str, per_day: int | None = None) -> ReleaseCount:
        """Put more flags of a released run before the reviewers, in key order; each transaction is seen at once. Repeatable."""
        return release_more(self._engine, run_id, flags, by[:BY_CHARS], self._database, per_day)

    def undo(self, run_id: str, *, by: str, why: str) -> Undo:
        """Withdraw the run's flags that no person touched, and restore what they had superseded. Repeatable."""
        row = self.reader().run(run_id)
        undoing = Undoing(by=by[:BY_CHARS], why=why[:STATE_WHY_CHARS], trail=self._trail, now=self._now)
        apply_undo(self._engine, row, undoing)
        return self.reader().undo(run_id)

    def request(self, run_id: str, wish: Wish | None, *, number: int, by: str, why: str) -> RunRow:
        """Ask for something, or withdraw what is asked, in the name of ``by``. The row as it then stands."""
        ask = Ask(wish=wish, number=number, by=by[:BY_CHARS], why=why[:WHY_CHARS])
        transact(
            self._engine,
            lambda connection: put_request(connection, run_id, ask, self._trail, self._now),
            where="store",
            landed=lambda connection: landed(connection, run_id, ask),
        )
        return self.reader().run(run_id)

    def note_request(self, run: RunHandle, number: int, *, met: bool) -> None:
        """Say that the run's driver has seen the request of that number, or met it. Done twice it is done once."""
        said: dict[str, Any] = {"request_seen_at": sa.func.coalesce(runs.c.request_seen_at, self._now)}
        said |= {"request_met_at": self._now} if met else {}
        this = runs.update().where(runs.c.run_id == run.run_id, runs.c.request_number == number).values(**said)
        self._fence.write_again(run, lambda connection: connection.execute(this))

    def note_waiting(self, run: RunHandle, reason: str) -> None:
        """Say in the run's row why it waits; an empty reason says that it goes on."""
        self._note(run, why=reason[:STATE_WHY_CHARS])

    def note_held_back(self, run: RunHandle, seconds: float, worst_lag_s: float | None) -> None:
        """Add to the time in which the run waited for a live source, and keep the worst lag of its replicas."""
        of_run = runs.c.run_id == run.run_id

        def add(connection: sa.Connection) -> None:
            connection.execute(runs.update().where(of_run).values(held_back_s=runs.c.held_back_s + seconds))
            if worst_lag_s is not None:
                larger = sa.or_(runs.c.worst_lag_s.is_(None), runs.c.worst_lag_s < worst_lag_s)
                connection.execute(runs.update().where(of_run, larger).values(worst_lag_s=worst_lag_s))

        self._fence.write(run, add)

    def note_executor(self, run: RunHandle, description: str) -> None:
        """Say in the run's row where its attempts run."""
        self._note(run, executor=description[:_EXECUTOR_CHARS])

    def accept(self, run: RunHandle, accepted: Sequence[Accepted]) -> None:
        """Record which other versions of libraries somebody accepted, in the audit trail too; repeatable."""
        self._fence.write(run, lambda connection: put_accepted(connection, run, accepted, self._trail, self._now))

    def note_deadline(self, run: RunHandle, deadline_at: datetime) -> None:
        """Say in the run's row by when it is to be over."""
        self._note(run, deadline_at=deadline_at.timestamp(), expected_at=None, late_since=None)

    def note_expected(self, run: RunHandle, expected_at: datetime, *, late: bool) -> None:
        """Say in the run's row when it is expected to be over, and whether that is too late; since when is kept."""
        since = sa.func.coalesce(runs.c.late_since, self._now) if late else None
        self._note(run, expected_at=expected_at.timestamp(), late_since=since)

    def _note(self, run: RunHandle, **said: Any) -> None:
        self._fence.write(
            run, lambda connection: connection.execute(runs.update().where(runs.c.run_id == run.run_id).values(**said))
        )

    def hold(self, run: RunHandle, subject: Subject, findings: Sequence[Finding], why: str) -> HoldRow:
        """Record what a guard found and give the run back, held, in one transaction. The same findings are the same hold."""

        def end(connection: sa.Connection) -> HoldRow:
            at = self._fence.clock(connection)
            hold = put_hold(connection, run, subject, findings, at)
            give_back(connection, run, at, "held", why)
            return hold

        held = self._fence.write(run, end)
        reach(Point.RUN_HELD)
        return held

    def approve(self, hold: HoldRow, *, by: str, because: str) -> HoldRow:
        """Record that a person approved exactly that hold; the hold as it then stands. Other findings hold again.

        Raises:
            Refused: ``not_held``.
        """
        approval = Approval(hold, by=by, because=because, now=self._now, trail=self._trail)
        approved = transact(self._engine, approval, where="store", landed=approval.landed)
        reach(Point.HOLD_APPROVED)
        return approved

    def close(self, run: RunHandle, state: str, why: str = "") -> RunRow:
        """Give the run back: finished, paused, cancelled, interrupted or failed; `hold` gives it back held by a guard."""

        def end(connection: sa.Connection) -> RunRow:
            give_back(connection, run, self._fence.clock(connection), state, why)
            return row_of(connection, run.run_id)

        row = self._fence.write(run, end)
        reach(Point.RUN_CLOSED)
        return row
