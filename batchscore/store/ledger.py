"""The ledger: runs, epochs, leases, partitions, receipts. Every write is one transaction that first checks the epoch.

Locks are taken in one order: the run's row, then the queue's, then rows by their keys. A transaction that the database gave
up is done again from its start; one whose COMMIT got no answer left its mark in the run's row, or does not stand.

The allowed changes of a run's state: running → finished, or (given back) held, paused, cancelled, interrupted or failed; and
from each of these → running, taken over, but from paused and cancelled only by way of interrupted, which a person does.
Of a partition's: planned → committed or quarantined, and nothing after that.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from batchscore.acceptance import Accepted
from batchscore.database import is_mysql, now, read, transact
from batchscore.digest import digest_of
from batchscore.driver import is_gone
from batchscore.errors import CommitConflict, Fenced, Refused, RunFailed, TryAgain
from batchscore.failpoints import Point, reach
from batchscore.flag import AnyFlag
from batchscore.hold import Finding, HoldRow, Subject, findings_digest
from batchscore.plan import Partition, Plan, Reference, Stage, Task
from batchscore.ports import ReleaseCount, RunHandle, RunRow, Undo
from batchscore.receipt import Output, Receipt
from batchscore.request import BY_CHARS, WHY_CHARS, Wish
from batchscore.store.accepting import put_accepted
from batchscore.store.audit import AuditTrail
from batchscore.store.flags import release, release_more
from batchscore.store.inserting import ReviewDatabase
from batchscore.store.reader import Reader, done_before
from batchscore.store.requests import Ask, landed, put_request, refuse_requested
from batchscore.store.rows import (
    FINDINGS,
    LARGEST_IN_MYSQL,
    LARGEST_IN_SQLITE,
    hold_row,
    microseconds,
    moment,
    request_of,
    run_row,
)
from batchscore.store.tables import attempts, holds, outputs, partitions, run_outputs, runs, stages, sweeps
from batchscore.store.undo import Undoing, apply_undo

LEASE_S: Final = 30.0
MESSAGE_CHARS: Final = 2_000
EXECUTOR_CHARS: Final = 255

T = TypeVar("T")


class Ledger:
    """Implements `ports.Store` over an engine; ``folder`` is where outputs lie."""

    def __init__(self, engine: sa.Engine, folder: Path, *, lease_s: float = LEASE_S) -> None:
        self._engine = engine
        self._folder = folder
        self._lease_s = lease_s
        self._now = now(engine)
        self._trail = AuditTrail(folder, self._now)
        self._largest_id = LARGEST_IN_MYSQL if is_mysql(engine) else LARGEST_IN_SQLITE

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
            # The next generation is counted before the newest is looked at: a run that another driver makes in between is
            # either seen, or has this number, and the second insert of it fails.
            generation = self._next_generation(connection, plan)
            newest = self._newest(connection, plan.digest)
            if newest is None or (again and newest["state"] in {"finished", "failed", "cancelled"}):
                run_id = self._create(connection, plan, generation)
            elif newest["state"] == "finished":
                return RunHandle(run_id=newest["run_id"], epoch=newest["epoch"], owner=owner), run_row(newest)
            else:
                run_id = newest["run_id"]
                refuse_requested(run_id, request_of(newest), plan.spec.store)
            self._take(connection, run_id, owner)
            row = self._row(connection, run_id)
            return RunHandle(run_id=run_id, epoch=row.epoch, owner=owner), row

        taken = transact(self._engine, take, where="store")  # done twice it takes what is its own, under a higher epoch
        reach(Point.RUN_OPENED)
        return taken

    def begin_sweep(self, plan: Plan) -> None:
        """Record a sweep, before its run. What it comes to is the run's to say: a watermark is never written apart from it.

        Raises:
            Refused: ``run_taken``: a driver is at another plan of that spec for the same as-of.
        """
        as_of = microseconds(plan.spec.as_ofs()[-1])

        def begin(connection: sa.Connection) -> None:
            of_as_of = (sweeps.c.name == plan.spec.name) & (sweeps.c.as_of == as_of)
            query = (
                sa.select(runs.c.run_id, runs.c.lease_owner)
                .join(sweeps, sweeps.c.plan_digest == runs.c.plan_digest)
                .where(of_as_of, sweeps.c.plan_digest != plan.digest, runs.c.state == "running", runs.c.lease_until >= self._now)
            )
            for row in connection.execute(query):
                if not is_gone(row.lease_owner):
                    raise Refused(
                        "run_taken",
                        f"{row.lease_owner} is sweeping this as-of already, with other inputs or policy",
                        where=f"run {row.run_id}",
                        remedy=f"watch it: batchscore watch {row.run_id}",
                    )
            known = connection.execute(sa.select(sweeps).where(of_as_of, sweeps.c.plan_digest == plan.digest)).first()
            if known is None:
                begun = {"name": plan.spec.name, "as_of": as_of, "plan_digest": plan.digest, "begun_at": self._now}
                try:
                    connection.execute(sweeps.insert().values(begun))
                except sa.exc.IntegrityError:
                    raise TryAgain("commit_conflict", "another driver began this sweep just now", where=plan.spec.name) from None

        transact(self._engine, begin, where="store")

    def renew(self, run: RunHandle) -> None:
        """Lengthen the lease. Raises Fenced."""
        transact(self._engine, lambda connection: self._check(connection, run), where="store")

    def lay_out(self, run: RunHandle, stage: Stage, laid_out: Sequence[Partition]) -> None:
        """Fix a stage's partitions, once, and commit those whose address was done before, with the receipt it has.

        Raises:
            CommitConflict: the stage is laid out already, otherwise.
        """
        layout = digest_of([(partition.number, partition.address) for partition in laid_out])

        def fix(connection: sa.Connection) -> None:
            query = sa.select(stages.c.layout_digest).where(stages.c.run_id == run.run_id, stages.c.stage == stage.value)
            found = connection.execute(query).scalar_one_or_none()
            if found == layout:
                return
            if found is not None:
                raise CommitConflict(
                    "commit_conflict",
                    f"{stage} is laid out already, in other partitions",
                    where=f"run {run.run_id}",
                    remedy=f"batchscore status {run.run_id}",
                )
            at = self._clock(connection)
            connection.execute(stages.insert().values(run_id=run.run_id, stage=stage.value, layout_digest=layout, laid_out_at=at))
            if laid_out:
                connection.execute(partitions.insert(), [_planned(run, partition, at) for partition in laid_out])
            self._accept(connection, run, reused, at)

        reach(Point.STAGE_CUT)
        reused = self._done_before(run, laid_out)  # outside the transaction: files may have to be hashed
        self._fenced(run, fix)
        reach(Point.STAGE_LAID_OUT)

    def _done_before(self, run: RunHandle, laid_out: Sequence[Partition]) -> list[Receipt]:
        """Receipts that can be taken as they are. A run that is run again trusts no file of the store unseen."""

        def look(connection: sa.Connection) -> list[Receipt]:
            again = connection.execute(sa.select(runs.c.generation).where(runs.c.run_id == run.run_id)).scalar_one() > 1
            found = (done_before(connection, self._folder, partition, hashed=again) for partition in laid_out)
            return [receipt for receipt in found if receipt is not None]

        return read(self._engine, look, where="store")

    def unfinished(self, run: RunHandle, stage: Stage) -> tuple[Partition, ...]:
        """Partitions neither committed nor quarantined, by number."""
        return self.reader().unfinished(run.run_id, stage)

    def commit(self, run: RunHandle, receipts: Sequence[Receipt]) -> tuple[int, ...]:
        """Accept receipts in one transaction; the numbers that are newly committed.

        The receipt of a partition that was quarantined meanwhile (a zombie's) is passed over: a run never takes back what
        it has told. Of two attempts at a live table, which may have changed in between, the first counts.

        Raises:
            Fenced: a newer driver has the run.
            CommitConflict: a receipt for a partition, or an address, that this run does not have.
            RunFailed: ``nondeterministic``: another receipt with other content stands. Nothing of this call is kept.
        """

        def accept(connection: sa.Connection) -> tuple[int, ...]:
            new: dict[tuple[Stage, int], Receipt] = {}
            for receipt in receipts:
                standing = self._standing(connection, run, receipt)
                earlier = new.get((receipt.stage, receipt.number)) or standing
                if earlier is None:
                    new[receipt.stage, receipt.number] = receipt
                elif isinstance(earlier, Receipt) and not receipt.live and earlier.content() != receipt.content():
                    raise RunFailed(
                        "nondeterministic",
                        f"two attempts at {receipt.stage} {receipt.number} gave different bytes",
                        where=f"run {run.run_id}",
                        remedy="compare the workers' hardware and libraries: batchscore status",
                    )
            self._accept(connection, run, list(new.values()), self._clock(connection))
            return tuple(number for _, number in new)

        committed = self._fenced(run, accept)
        reach(Point.RECEIPTS_COMMITTED)
        return committed

    def count_failure(self, run: RunHandle, task: Task, reason: str, message: str, *, quarantine_at: int | None) -> bool:
        """Record a failed attempt; with the ``quarantine_at``-th the partition is quarantined. Whether it now is.

        None: the failure says nothing of the partition, and does not count.
        """
        message = message[:MESSAGE_CHARS]

        def count(connection: sa.Connection) -> bool:
            at = self._clock(connection)
            self._log(connection, run, task, {"outcome": "failed", "reason": reason, "message": message, "ended_at": at})
            if quarantine_at is None:
                return False
            of_task = _of(run, task.partition) & (partitions.c.state == "planned")
            connection.execute(partitions.update().where(of_task).values(n_failures=partitions.c.n_failures + 1))
            aside = {"state": "quarantined", "reason": reason, "message": message, "epoch": run.epoch, "updated_at": at}
            connection.execute(partitions.update().where(of_task & (partitions.c.n_failures >= quarantine_at)).values(**aside))
            state = connection.execute(sa.select(partitions.c.state).where(_of(run, task.partition))).scalar_one()
            return bool(state == "quarantined")

        aside = self._fenced(run, count)
        reach(Point.FAILURE_COUNTED)
        return aside

    def count_suspicion(self, run: RunHandle, task: Task, reason: str = "worker_lost") -> int:
        """Record that a worker was lost, or given up, at this partition; how often it has been."""

        def count(connection: sa.Connection) -> int:
            row = {"outcome": "suspected", "reason": reason, "message": "", "ended_at": self._clock(connection)}
            self._log(connection, run, task, row)
            counted = partitions.update().where(_of(run, task.partition)).values(n_suspicions=partitions.c.n_suspicions + 1)
            connection.execute(counted)
            return int(connection.execute(sa.select(partitions.c.n_suspicions).where(_of(run, task.partition))).scalar_one())

        suspicions = self._fenced(run, count)
        reach(Point.SUSPICION_COUNTED)
        return suspicions

    def record_decision(self, run: RunHandle, decision: Reference, memory: Reference) -> RunRow:
        """Fix the decision, once; a second call keeps the first. The row as it stands."""

        def fix(connection: sa.Connection) -> RunRow:
            fixed = {"decision_path": decision.path, "decision_sha256": decision.sha256,
                     "memory_path": memory.path, "memory_sha256": memory.sha256}  # fmt: skip
            connection.execute(runs.update().where(runs.c.run_id == run.run_id, runs.c.decision_sha256.is_(None)).values(**fixed))
            return self._row(connection, run.run_id)

        row = self._fenced(run, fix)
        reach(Point.DECISION_RECORDED)
        return row

    def release(self, run: RunHandle, flags: Iterator[AnyFlag], evidence: Iterable[AnyFlag] = ()) -> ReleaseCount:
        """Insert flags and evidence on others, each in key order, and set ``released_at`` in the last transaction. Repeatable."""
        database = ReviewDatabase(now=self._now, largest_id=self._largest_id, trail=self._trail)
        return release(run, flags, lambda body: self._fenced(run, body), database, evidence)

    def release_more(self, run_id: str, flags: Iterator[AnyFlag], *, by: str, per_day: int | None = None) -> ReleaseCount:
        """Put more flags of a released run before the reviewers, in key order; each transaction is seen at once. Repeatable."""
        database = ReviewDatabase(now=self._now, largest_id=self._largest_id, trail=self._trail)
        return release_more(self._engine, run_id, flags, by[:BY_CHARS], database, per_day)

    def undo(self, run_id: str, *, by: str, why: str) -> Undo:
        """Withdraw the run's flags that no person touched, and restore what they had superseded. Repeatable."""
        row = self.reader().run(run_id)
        undoing = Undoing(by=by[:BY_CHARS], why=why[:MESSAGE_CHARS], trail=self._trail, now=self._now)
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

        def note(connection: sa.Connection) -> None:
            self._check(connection, run)
            connection.execute(this)

        transact(self._engine, note, where="store")

    def note_waiting(self, run: RunHandle, reason: str) -> None:
        """Say in the run's row why it waits; an empty reason says that it goes on."""
        self._note(run, why=reason[:MESSAGE_CHARS])

    def note_held_back(self, run: RunHandle, seconds: float, worst_lag_s: float | None) -> None:
        """Add to the time in which the run waited for a live source, and keep the worst lag of its replicas."""
        of_run = runs.c.run_id == run.run_id

        def add(connection: sa.Connection) -> None:
            connection.execute(runs.update().where(of_run).values(held_back_s=runs.c.held_back_s + seconds))
            if worst_lag_s is not None:
                larger = sa.or_(runs.c.worst_lag_s.is_(None), runs.c.worst_lag_s < worst_lag_s)
                connection.execute(runs.update().where(of_run, larger).values(worst_lag_s=worst_lag_s))

        self._fenced(run, add)

    def note_executor(self, run: RunHandle, description: str) -> None:
        """Say in the run's row where its attempts run."""
        self._note(run, executor=description[:EXECUTOR_CHARS])

    def accept(self, run: RunHandle, accepted: Sequence[Accepted]) -> None:
        """Record which other versions of libraries somebody accepted, in the audit trail too; repeatable."""
        self._fenced(run, lambda connection: put_accepted(connection, run, accepted, self._trail, self._now))

    def note_deadline(self, run: RunHandle, deadline_at: datetime) -> None:
        """Say in the run's row by when it is to be over."""
        self._note(run, deadline_at=deadline_at.timestamp(), expected_at=None, late_since=None)

    def note_expected(self, run: RunHandle, expected_at: datetime, *, late: bool) -> None:
        """Say in the run's row when it is expected to be over, and whether that is too late; since when is kept."""
        since = sa.func.coalesce(runs.c.late_since, self._now) if late else None
        self._note(run, expected_at=expected_at.timestamp(), late_since=since)

    def _note(self, run: RunHandle, **said: Any) -> None:
        self._fenced(run, lambda connection: connection.execute(runs.update().where(runs.c.run_id == run.run_id).values(**said)))

    def hold(self, run: RunHandle, subject: Subject, findings: Sequence[Finding], why: str) -> HoldRow:
        """Record what a guard found and give the run back, held, in one transaction. The same findings are the same hold."""
        digest = findings_digest(findings)
        this = (holds.c.run_id == run.run_id) & (holds.c.subject == subject) & (holds.c.digest == digest)

        def end(connection: sa.Connection) -> HoldRow:
            at = self._clock(connection)
            if connection.execute(holds.update().where(this).values(held_at=at)).rowcount != 1:
                text = FINDINGS.dump_json(tuple(findings)).decode()
                new = {"run_id": run.run_id, "subject": subject, "digest": digest, "findings": text, "held_at": at}
                connection.execute(holds.insert().values(**new))
            self._give_back(connection, run, at, "held", why)
            return hold_row(connection.execute(sa.select(holds).where(this)).mappings().one())

        held = self._fenced(run, end)
        reach(Point.RUN_HELD)
        return held

    def approve(self, hold: HoldRow, *, by: str, because: str) -> HoldRow:
        """Record that a person approved exactly that hold; the hold as it then stands. Other findings hold again.

        The run's row is locked first, as by every driver: a run that is held anew meanwhile is not approved unseen.
        """
        this = (holds.c.run_id == hold.run_id) & (holds.c.subject == hold.subject) & (holds.c.digest == hold.digest)

        def put(connection: sa.Connection) -> HoldRow:
            of_run = sa.select(runs.c.state).where(runs.c.run_id == hold.run_id).with_for_update()
            state = connection.execute(of_run).scalar_one()
            if state != "held":
                raise _not_held(hold.run_id, f"the run is {state}")
            newest = sa.select(sa.func.max(holds.c.held_at)).where(holds.c.run_id == hold.run_id).scalar_subquery()
            latest = connection.execute(sa.select(holds.c.held_at == newest).where(this)).scalar_one_or_none()
            if not latest:
                raise _not_held(hold.run_id, "the run is held for something else by now")
            approved = holds.update().where(this, holds.c.approved_at.is_(None))
            said = {"approved_by": by, "approved_because": because, "approved_at": self._now}
            if connection.execute(approved.values(**said)).rowcount != 1:
                first = connection.execute(sa.select(holds.c.approved_by).where(this)).scalar_one()
                raise _not_held(hold.run_id, f"{first} has approved this already")
            return hold_row(connection.execute(sa.select(holds).where(this)).mappings().one())

        def landed(connection: sa.Connection) -> bool:
            connection.execute(sa.select(runs.c.state).where(runs.c.run_id == hold.run_id).with_for_update())
            mine = this & (holds.c.approved_by == by) & (holds.c.approved_because == because)
            return connection.execute(sa.select(holds.c.digest).where(mine)).first() is not None

        approved = transact(self._engine, put, where="store", landed=landed)
        reach(Point.HOLD_APPROVED)
        return approved

    def close(self, run: RunHandle, state: str, why: str = "") -> RunRow:
        """Give the run back: finished, paused, cancelled, interrupted or failed; `hold` gives it back held by a guard."""

        def end(connection: sa.Connection) -> RunRow:
            self._give_back(connection, run, self._clock(connection), state, why)
            return self._row(connection, run.run_id)

        row = self._fenced(run, end)
        reach(Point.RUN_CLOSED)
        return row

    def _give_back(self, connection: sa.Connection, run: RunHandle, at: float, state: str, why: str) -> None:
        finished = at if state == "finished" else None
        ended = {"state": state, "why": why[:MESSAGE_CHARS], "finished_at": finished, "updated_at": at, "lease_until": at}
        connection.execute(runs.update().where(runs.c.run_id == run.run_id).values(**ended))

    def _fenced(self, run: RunHandle, body: Callable[[sa.Connection], T]) -> T:
        """One transaction that stands only while this driver's epoch is the run's; it lengthens the lease.

        The mark it leaves is what tells, after a COMMIT without an answer, whether it stands. A run has one driver, and
        this driver one such transaction at a time (`renew`, in another thread, leaves no mark).
        """
        mark = uuid.uuid4().hex

        def whole(connection: sa.Connection) -> T:
            self._check(connection, run, last_write=mark)
            return body(connection)

        def landed(connection: sa.Connection) -> bool:
            query = sa.select(runs.c.last_write).where(runs.c.run_id == run.run_id).with_for_update()
            return bool(connection.execute(query).scalar_one() == mark)

        return transact(self._engine, whole, where="store", landed=landed)

    def _check(self, connection: sa.Connection, run: RunHandle, **marked: str) -> None:
        """The fence: lengthen the lease if the run is still this driver's, in the WHERE. Locks the run's row."""
        mine = (runs.c.run_id == run.run_id) & (runs.c.epoch == run.epoch) & (runs.c.state == "running")
        renewed = runs.update().where(mine).values(lease_until=self._now + self._lease_s, updated_at=self._now, **marked)
        if connection.execute(renewed).rowcount != 1:
            raise Fenced(
                "fenced",
                "a newer driver has this run, or it was closed",
                where=f"run {run.run_id}",
                remedy=f"batchscore status {run.run_id}",
            )

    def _clock(self, connection: sa.Connection) -> float:
        return float(connection.execute(sa.select(self._now)).scalar_one())

    def _newest(self, connection: sa.Connection, plan_digest: str) -> Any:
        query = sa.select(runs).where(runs.c.plan_digest == plan_digest).order_by(runs.c.generation.desc()).limit(1)
        return connection.execute(query).mappings().first()

    def _row(self, connection: sa.Connection, run_id: str) -> RunRow:
        return run_row(connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).mappings().one())

    def _next_generation(self, connection: sa.Connection, plan: Plan) -> int:
        """Generations count per id prefix, so that two plans with one prefix cannot share an id."""
        of_prefix = runs.c.run_id.startswith(_prefix(plan))
        return (connection.execute(sa.select(sa.func.max(runs.c.generation)).where(of_prefix)).scalar() or 0) + 1

    def _create(self, connection: sa.Connection, plan: Plan, generation: int) -> str:
        run_id = f"{_prefix(plan)}{generation}"
        at = self._clock(connection)
        new = runs.insert().values(
            run_id=run_id, plan_digest=plan.digest, generation=generation, name=plan.spec.name,
            plan=plan.model_dump_json(by_alias=True), state="running", why="", epoch=0, lease_owner="", lease_until=0.0,
            created_at=at, updated_at=at,
        )  # fmt: skip
        try:
            connection.execute(new)
        except sa.exc.IntegrityError:  # another driver made it between our look and our insert: look again
            raise TryAgain(
                "commit_conflict", "another driver opened this run just now", where=f"plan {plan.digest[:12]}"
            ) from None
        return run_id

    def _take(self, connection: sa.Connection, run_id: str, owner: str) -> None:
        """The one statement by which a driver gets a run: its epoch goes up if nobody else's lease is alive."""
        holder = connection.execute(sa.select(runs.c.lease_owner).where(runs.c.run_id == run_id)).scalar_one()
        mine = holder if is_gone(holder) else owner
        free = (runs.c.lease_until < self._now) | (runs.c.lease_owner == mine) | (runs.c.state != "running")
        taken = runs.update().where(runs.c.run_id == run_id, runs.c.state != "finished", free)
        values = {"epoch": runs.c.epoch + 1, "lease_owner": owner, "lease_until": self._now + self._lease_s, "state": "running",
                  "why": "", "updated_at": self._now}  # fmt: skip
        if connection.execute(taken.values(**values)).rowcount != 1:
            row = connection.execute(sa.select(runs.c.lease_owner, runs.c.lease_until).where(runs.c.run_id == run_id)).one()
            raise Refused(
                "run_taken",
                f"{row.lease_owner} has this run until {moment(row.lease_until):%H:%M:%S} UTC",
                where=f"run {run_id}",
                remedy=f"watch it (batchscore watch {run_id}), or try again when its lease has run out",
            )

    def _standing(self, connection: sa.Connection, run: RunHandle, receipt: Receipt) -> Receipt | str | None:
        """What the ledger holds for a receipt's partition: a receipt, ``quarantined``, or nothing yet."""
        where = (
            (partitions.c.run_id == run.run_id)
            & (partitions.c.stage == receipt.stage.value)
            & (partitions.c.number == receipt.number)
        )
        query = sa.select(partitions.c.state, partitions.c.address, partitions.c.receipt).where(where)
        row = connection.execute(query).first()
        if row is None or row.address != receipt.address:
            raise CommitConflict(
                "commit_conflict",
                f"this run has no {receipt.stage} {receipt.number} at that address",
                where=f"run {run.run_id}",
                remedy=f"batchscore status {run.run_id}",
            )
        if row.state == "committed":
            return Receipt.model_validate_json(row.receipt)
        return None if row.state == "planned" else str(row.state)

    def _accept(self, connection: sa.Connection, run: RunHandle, receipts: Sequence[Receipt], at: float) -> None:
        if not receipts:
            return
        number: sa.BindParameter[int] = sa.bindparam("p_number")
        stage: sa.BindParameter[str] = sa.bindparam("p_stage")
        accept = (
            partitions.update()
            .where(partitions.c.run_id == run.run_id, partitions.c.stage == stage, partitions.c.number == number)
            .values(state="committed", receipt=sa.bindparam("p_receipt"), epoch=run.epoch, updated_at=at)
        )
        rows = [
            {"p_number": receipt.number, "p_stage": receipt.stage.value, "p_receipt": receipt.model_dump_json()}
            for receipt in receipts
        ]
        connection.execute(accept, rows)
        reach(Point.RECEIPTS_ACCEPTING)
        in_order = sorted(
            ((receipt, output) for receipt in receipts for output in receipt.outputs), key=lambda pair: pair[1].path
        )
        written = {output.path: (receipt, output) for receipt, output in in_order}
        known = _known(connection, outputs.c.path, list(written))
        fresh = [_output_values(receipt, output, at) for path, (receipt, output) in written.items() if path not in known]
        if fresh:
            connection.execute(outputs.insert(), fresh)
        mine = _known(connection, run_outputs.c.path, list(written), run_outputs.c.run_id == run.run_id)
        references = [{"run_id": run.run_id, "path": path} for path in written if path not in mine]
        if references:
            connection.execute(run_outputs.insert(), references)

    def _log(self, connection: sa.Connection, run: RunHandle, task: Task, row: dict[str, Any]) -> None:
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


def _not_held(run_id: str, what: str) -> Refused:
    return Refused(
        "not_held",
        f"nothing was approved: {what}",
        where=f"run {run_id}",
        remedy=f"look how it stands: batchscore status {run_id}",
    )


def _prefix(plan: Plan) -> str:
    return f"r-{plan.digest[:8]}-"


def _of(run: RunHandle, partition: Partition) -> sa.ColumnElement[bool]:
    of_stage = (partitions.c.run_id == run.run_id) & (partitions.c.stage == partition.stage.value)
    return of_stage & (partitions.c.number == partition.number)


def _planned(run: RunHandle, partition: Partition, at: float) -> dict[str, Any]:
    return {
        "run_id": run.run_id, "stage": partition.stage.value, "number": partition.number, "address": partition.address,
        "state": "planned", "n_rows": partition.n_rows, "n_failures": 0, "n_suspicions": 0, "reason": "", "message": "",
        "epoch": run.epoch, "updated_at": at, "work": partition.model_dump_json(by_alias=True), "receipt": None,
    }  # fmt: skip


def _output_values(receipt: Receipt, output: Output, at: float) -> dict[str, Any]:
    return {"path": output.path, "address": receipt.address, "role": output.role, "sha256": output.sha256,
            "n_bytes": output.n_bytes, "created_at": at}  # fmt: skip


def _known(connection: sa.Connection, column: sa.Column[Any], values: list[str], *conditions: sa.ColumnElement[bool]) -> set[str]:
    """Which of ``values`` the column holds already; asked for in bounded lists."""
    found: set[str] = set()
    for first in range(0, len(values), 500):
        query = sa.select(column).where(column.in_(values[first : first + 500]), *conditions)
        found |= set(connection.execute(query).scalars())
    return found
