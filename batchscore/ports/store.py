"""The port for writing a store. A run's driver holds it, and verbs of people that need it. Implemented by `store.ledger`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from batchscore.acceptance import Accepted
from batchscore.flag import AnyFlag
from batchscore.hold import Finding, HoldRow, Subject
from batchscore.plan import Partition, Plan, Reference, Stage, Task
from batchscore.ports.flag_rows import MemoryRead, ReleaseCount, Undo
from batchscore.ports.run_rows import RunRow
from batchscore.ports.store_reader import StoreReader
from batchscore.receipt import Receipt
from batchscore.request import Wish
from batchscore.values import Value


class RunHandle(Value):
    """A run this driver holds: its epoch is the fence. ``store``: the store's folder, for whom a message tells what to do."""

    run_id: str
    epoch: int
    owner: str
    store: str = ""


class Store(Protocol):
    """The database of runs and flags. Only the driver holds one."""

    def reader(self) -> StoreReader:
        """The same database, for reading."""

    def open(self, plan: Plan, *, owner: str, again: bool = False) -> tuple[RunHandle, RunRow]:
        """Create the run of this plan, or take over its newest unfinished generation.

        ``again`` opens the next generation of a finished or failed one; otherwise a finished run is returned as it is, and not
        taken, and a failed one is gone on with.

        Raises:
            Refused: ``run_taken`` when another driver's lease has not run out.
            Paused, Cancelled: a person asked that it should rest. ``again`` passes over a cancelled one.
        """

    def begin_sweep(self, plan: Plan) -> None:
        """Record that the plan is the sweep of its spec at its as-of; repeatable.

        Raises:
            Refused: ``run_taken``: a driver is at another plan of that spec for the same as-of.
        """

    def renew(self, run: RunHandle) -> None:
        """Lengthen the lease. Raises Fenced."""

    def lay_out(self, run: RunHandle, stage: Stage, partitions: Sequence[Partition]) -> None:
        """Fix a stage's partitions, once; a second call with others raises CommitConflict.

        Partitions whose address has a committed receipt of any run are committed with it right away (reuse).
        """

    def unfinished(self, run: RunHandle, stage: Stage) -> tuple[Partition, ...]:
        """Partitions neither committed nor quarantined, by number."""

    def commit(self, run: RunHandle, receipts: Sequence[Receipt]) -> tuple[int, ...]:
        """Accept receipts in one transaction under the epoch; the numbers newly committed.

        An equal second receipt is success; a differing one raises RunFailed ``nondeterministic``. Raises Fenced.
        """

    def count_failure(self, run: RunHandle, task: Task, reason: str, message: str, *, quarantine_at: int | None) -> bool:
        """Record a failed attempt; with the ``quarantine_at``-th the partition is quarantined. Returns whether it now is.

        None: the failure says nothing of the partition (a full disk), and does not count.
        """

    def count_suspicion(self, run: RunHandle, task: Task, reason: str = "worker_lost") -> int:
        """Record that a worker was lost, or given up, at this partition; returns how often it has been."""

    def record_decision(self, run: RunHandle, decision: Reference, memory: Reference) -> RunRow:
        """Fix the decision, once; a second call keeps the first. Returns the row as it stands."""

    def release(
        self,
        run: RunHandle,
        flags: Iterable[AnyFlag],
        evidence: Iterable[AnyFlag] = (),
        memory: MemoryRead | None = None,
    ) -> ReleaseCount:
        """Insert flags, then evidence on others, each in key order; the last transaction sets released_at. Repeatable.

        What people wrote after the run read its ``memory``, which decide did not see, keeps accounts from the reviewers: a
        suppression that holds by now, and a decision on a flag of the account.
        """

    def release_more(self, run_id: str, flags: Iterable[AnyFlag], *, by: str, per_day: int | None = None) -> ReleaseCount:
        """Put more flags of a released run before the reviewers, in key order; each transaction is seen at once. Repeatable.

        ``per_day``: no more of the run's on a day (UTC, by the database's clock), however many ask at once; the best ranks go.
        What was released before is left as it is; the count is of what came now. No driver's: it needs no epoch.

        Raises:
            Refused: ``nothing_to_release``: the run is not released, or an undo of it was begun.
        """

    def undo(self, run_id: str, *, by: str, why: str) -> Undo:
        """Withdraw the run's flags that no person touched, and restore what they had superseded. Repeatable.

        Reviewers see none of them from the first transaction on; one that was cut goes on where it stopped.

        Raises:
            Refused: ``run_unknown``, or ``nothing_to_undo``: the run released nothing.
        """

    def request(self, run_id: str, wish: Wish | None, *, number: int, by: str, why: str) -> RunRow:
        """Ask for something, or withdraw what is asked, in the name of ``by``. The row as it then stands. No driver's.

        ``number``: of the newest request that the caller saw, which must still be the newest.

        Raises:
            Refused: ``nothing_to_control``: the run is finished, or somebody was first.
        """

    def note_request(self, run: RunHandle, number: int, *, met: bool) -> None:
        """Say that the run's driver has seen the request of that number, or that it has ``met`` it. Of another one, nothing."""

    def note_waiting(self, run: RunHandle, reason: str) -> None:
        """Say in the run's row why it waits, for whoever looks from elsewhere; an empty reason says that it goes on."""

    def note_held_back(self, run: RunHandle, seconds: float, worst_lag_s: float | None) -> None:
        """Add to the time in which the run waited for a live source, and keep the worst lag of its replicas."""

    def note_executor(self, run: RunHandle, description: str) -> None:
        """Say in the run's row where its attempts run (`Executor.describe`)."""

    def accept(self, run: RunHandle, accepted: Sequence[Accepted]) -> None:
        """Record which other versions of libraries somebody accepted, in the audit trail too; repeatable.

        Outputs that are committed from this epoch on serve this run alone where the run is ``mixed``.
        """

    def note_deadline(self, run: RunHandle, deadline_at: datetime) -> None:
        """Say in the run's row by when it is to be over."""

    def note_expected(self, run: RunHandle, expected_at: datetime, *, late: bool) -> None:
        """Say in the run's row when it is expected to be over, and whether that is too late; since when is kept."""

    def hold(self, run: RunHandle, subject: Subject, findings: Sequence[Finding], why: str) -> HoldRow:
        """Record what a guard found and give the run back, held, in one transaction. The same findings are the same hold."""

    def approve(self, hold: HoldRow, *, by: str, because: str) -> HoldRow:
        """Record that a person approved exactly that hold; the hold as it then stands. No driver's: it needs no epoch.

        Raises:
            Refused: ``not_held``: the run is not held, not for this any more, or this was approved before.
        """

    def close(self, run: RunHandle, state: str, why: str = "") -> RunRow:
        """Give the run back: finished, paused, cancelled, interrupted or failed; `hold` gives it back held by a guard."""
