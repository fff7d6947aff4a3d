"""The port for reading a store: what planning, status and reports get. Implemented by `store.reader`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from batchscore.acceptance import Accepted
from batchscore.audit import AuditEntry
from batchscore.desk import QueueEvent, Reviewed, Wanted
from batchscore.flag import AccountId, FlagState, ReleasedAs
from batchscore.hold import Finding, HoldRow, Subject
from batchscore.plan import Partition, Stage
from batchscore.ports.flag_rows import FlagRow, HeldChange, HeldClaim, HeldFlag, HeldOpinion, PastColumns, Suppression, Undo
from batchscore.ports.run_rows import FailureRow, HeldOutput, QuarantinedRow, RunRow, StageRow, SweepRow
from batchscore.receipt import Receipt
from batchscore.request import Request


class StoreReader(Protocol):
    """Reads; what planning, status and reports get."""

    def run(self, run_id: str) -> RunRow:
        """That run. Raises Refused ``run_unknown``."""

    def runs(self, *, limit: int = 50) -> tuple[RunRow, ...]:
        """The newest runs first."""

    def runs_of(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name, however they ended, the newest first."""

    def released_runs(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name that are released and not undone, the newest first."""

    def newest_finished(self, name: str) -> RunRow | None:
        """The finished run of the spec of that name that was opened last."""

    def run_before(self, row: RunRow) -> RunRow | None:
        """The newest finished run of the same spec name that was opened before this one."""

    def runs_of_plan(self, plan_digest: str) -> tuple[RunRow, ...]:
        """All generations of a plan, the newest first."""

    def newest_of_plan(self, prefix: str) -> RunRow | None:
        """The newest run whose plan's digest begins so; ``prefix``: hex digits."""

    def requested(self, run_id: str) -> Request | None:
        """What a person asks of the run now. One row, without its plan: a driver looks every second."""

    def sweeps(self, name: str) -> tuple[SweepRow, ...]:
        """The sweeps of the spec of that name and their runs, by as-of, then in the order in which the runs were made."""

    def accepted(self, run_id: str) -> tuple[Accepted, ...]:
        """What was accepted of the run that its plan pins otherwise, in order of time."""

    def holds(self, run_id: str) -> tuple[HoldRow, ...]:
        """What the run was held for, in order of time; the last is what it is held for while its state is held."""

    def approved(self, name: str, subject: Subject) -> tuple[Finding, ...]:
        """What people approved of that subject in the runs of the spec of that name, the newest approvals first."""

    def stages(self, run_id: str) -> tuple[StageRow, ...]:
        """Progress of each stage laid out so far, in order."""

    def layouts(self, run_id: str) -> dict[Stage, str]:
        """Stage → the digest of its layout, (number, address) of each partition, as it was fixed."""

    def places(self, run_id: str, stage: Stage) -> tuple[tuple[int, str], ...]:
        """(number, address) of each partition of a stage, by number, as later runs look for them."""

    def partitions(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """All partitions of a stage, by number; empty before its layout."""

    def unfinished(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """Partitions neither committed nor quarantined, by number."""

    def receipts(self, run_id: str, stage: Stage) -> Iterator[Receipt]:
        """Committed receipts, by partition number."""

    def reused(self, run_id: str) -> frozenset[tuple[Stage, int]]:
        """Partitions whose receipt an earlier run had: no attempt was made at them."""

    def quarantined(self, run_id: str) -> tuple[QuarantinedRow, ...]:
        """Partitions set aside."""

    def failures(self, run_id: str) -> tuple[FailureRow, ...]:
        """Partitions at which something went wrong, by stage and number; quarantined ones are among them."""

    def outputs(self, run_id: str) -> Iterator[HeldOutput]:
        """The files that a run refers to, by path."""

    def is_done(self, partition: Partition) -> bool:
        """Whether a run has committed that partition's address, and its files are there: it would not be done again."""

    def flags(self, run_id: str) -> Iterator[HeldFlag]:
        """All flags of a run, by queue and account id."""

    def flag_states(self, run_id: str) -> dict[FlagState, int]:
        """State → how many flags of a run stand in it; empty before its release."""

    def released_as(self, run_id: str) -> dict[ReleasedAs, int]:
        """What its release made of them → how many flags of a run there are; empty before its release."""

    def misstated(self, run_id: str) -> int:
        """How many flags of a run stand otherwise than claims and dispositions say."""

    def opinions(self, run_id: str) -> Iterator[HeldOpinion]:
        """What people said of the run's flags, by queue, account and time."""

    def claims(self, run_id: str) -> Iterator[HeldClaim]:
        """The newest claim of each of the run's flags that ever was claimed."""

    def changes(self, run_id: str) -> Iterator[HeldChange]:
        """What the outbox holds of the run's flags, by number."""

    def events_without_gap(self) -> bool:
        """Whether the numbers of the outbox have none, as far as sums can tell."""

    def undo(self, run_id: str) -> Undo:
        """What an undo of the run would do, or did. Raises Refused ``run_unknown`` or ``nothing_to_undo``."""

    def flags_of(self, account_id: AccountId) -> tuple[FlagRow, ...]:
        """Every flag of released runs about an account, in any queue and state, by as-of."""

    def queue(self, queue: str | None, *, limit: int) -> tuple[FlagRow, ...]:
        """Open flags of released runs, best rank first (queue, newest as-of, rank)."""

    def queue_names(self) -> tuple[str, ...]:
        """The queues that flags were released into, by name."""

    def past_columns(self, queue: str, *, but_not_of: RunRow) -> Iterator[PastColumns]:
        """Every released flag of the queue that was not withdrawn, sorted by account id then opened_at, some thousand at a time.

        Left out too are the run's own, and those of runs of the same spec for the same last as-of: they answer the question
        that this run asks again, so they must neither block its flags nor make room for others.
        """

    def suppressions(self, queue: str) -> tuple[Suppression, ...]:
        """Every suppression of the queue there ever was, by scope, key and begin; which hold depends on the moment."""

    def reviewed(self, wanted: Wanted, *, limit: int) -> tuple[Reviewed, ...]:
        """Flags as the desk holds them: those before the reviewers best first, or in the states that are asked for."""

    def all_reviewed(self, wanted: Wanted) -> Iterator[tuple[Reviewed, ...]]:
        """The same without a limit, some thousand at a time: those that are chosen now, as they stand when they come."""

    def account_flags(self, queue: str, account_id: AccountId) -> tuple[Reviewed, ...]:
        """Every flag of an account in a queue, with evidence and decisions, by when it opened."""

    def account_events(self, queue: str, account_id: AccountId) -> tuple[QueueEvent, ...]:
        """What happened to an account's flags in a queue, by number."""

    def decided_labels(self, queue: str) -> Iterator[tuple[AccountId, bool, datetime]]:
        """What people decided in a queue, by account and time: confirmed (True) or cleared (False)."""

    def newest_event(self) -> int:
        """The number of the newest change of a flag; 0 before there is any. What is not committed yet comes after it."""

    def events(self, after: int, *, limit: int) -> tuple[QueueEvent, ...]:
        """Changes of flags after that number, in order: numbers have no gap, and what has come never changes."""

    def audit(self, run_id: str | None = None, *, after: int = 0) -> Iterator[tuple[AuditEntry, str]]:
        """The audit trail after that entry, or what it says of one run: each entry and the digest held for it, in order."""

    def audit_head(self) -> tuple[int, str]:
        """Number and digest of the newest entry of the trail; 0 before there is any, an empty digest where the head is gone."""

    def audit_key(self) -> bytes:
        """The key under which the trail names accounts. Raises Refused ``file_missing``."""

    def clock(self) -> datetime:
        """What time it is by the database, by which suppressions and flags begin and end."""
