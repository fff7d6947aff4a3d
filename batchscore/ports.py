"""The seams: what the story needs from the executor, the store and the observer, and the rows that go over them.

Implementations live in `executors`, `store` and `observe`, do not know each other, and meet one behaviour suite for each seam.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal, Protocol

from batchscore.acceptance import Accepted
from batchscore.audit import AuditEntry
from batchscore.desk import QueueEvent, Reviewed, Wanted
from batchscore.events import Event
from batchscore.flag import AccountId, AnyFlag, Flag, FlagState
from batchscore.hold import Finding, HoldRow, Subject
from batchscore.plan import Partition, Plan, Reference, Stage, Task
from batchscore.receipt import Outcome, Receipt
from batchscore.request import Request, Wish
from batchscore.shown import Showable, Shown
from batchscore.spec import Value


class Observer(Protocol):
    """Hears what happens."""

    def __call__(self, event: Event) -> None:
        """One event; must not raise."""


class Worklist(Protocol):
    """What there is to do, handed out one task at a time."""

    def next(self) -> Task | None:
        """The next task, or None: nothing to hand out now (all done, in flight, or stopping)."""


class Executor(Protocol):
    """Runs attempts somewhere. Knows nothing of the ledger: it reports outcomes, the pipeline decides what they mean."""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        """Outcomes in batches as they come, until nothing is in flight and the worklist hands out nothing.

        A batch is empty when nothing happened for about a second, or when the driver waits for the next attempt itself: its
        chance to commit what came home and to look for a stop. A task for a partition that is in flight already takes the
        place of the older one.
        """

    def waiting(self) -> str:
        """Why nothing can go on at the moment; empty when something can."""

    def describe(self) -> str:
        """One line for people: ``inline``, ``dask tcp://127.0.0.1:… 2 workers``."""


class RunRow(Showable, Value):
    """A run as the ledger holds it. ``state``: running, finished, held, paused, cancelled, interrupted, failed."""

    run_id: str
    name: str
    plan_digest: str
    generation: int
    state: str
    epoch: int
    plan: Plan
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    decision: Reference | None = None
    memory: Reference | None = None
    released_at: datetime | None = None
    why: str = ""  # for held and failed
    executor: str = ""  # where the attempts of the newest driver ran, as it describes itself
    held_back_s: float = 0.0  # how long drivers waited for a live source with nothing under way
    worst_lag_s: float | None = None  # of its replicas, as drivers saw it
    driver_gone: bool = False  # it is running, and its driver has ended or let its lease run out: nobody is at it
    undo_begun_at: datetime | None = None  # from then on reviewers see none of its flags that no person touched
    undone_at: datetime | None = None
    undone_by: str = ""
    undone_why: str = ""
    request: Request | None = None  # what a person asks of it now
    deadline_at: datetime | None = None  # by when it is to be over
    expected_at: datetime | None = None  # when it will be, as its driver last thought
    late_since: datetime | None = None  # since when that is too late; None: it is not
    n_requests: int = 0  # so far: the number of the newest, which the next one is compared with

    def shown(self) -> Shown:
        """How it stands."""
        moments = {
            "opened": self.created_at, "finished": self.finished_at, "released": self.released_at, "undone": self.undone_at,
        }  # fmt: skip
        as_ofs = self.plan.spec.as_ofs()
        facts = [
            ("state", self.stands + (f": {self.why}" if self.why else "")),
            ("as of", f"{as_ofs[0]:%Y-%m-%d %H:%M} … {as_ofs[-1]:%Y-%m-%d %H:%M} UTC ({len(as_ofs)})"),
            ("bundles", ", ".join(self.plan.bundle_names().values())),
            ("queue", self.plan.spec.policy.queue),
            *((name, f"{at:%Y-%m-%d %H:%M:%S} UTC") for name, at in moments.items() if at is not None),
            ("plan", self.plan_digest),
            ("ran on", self.executor or "unknown"),
        ]
        return Shown(f"run {self.run_id} of {self.name}", facts)

    @property
    def stands(self) -> str:
        """The state in words: of a run that nobody drives, or that rests, it would be no use to say that it is running."""
        if self.driver_gone:
            return "driver gone"
        return self.request.stands if self.request is not None and self.state in {"running", "interrupted"} else self.state

    @property
    def failed_on_input(self) -> bool:
        """Whether an input ended the run (``why`` begins with its code, BS-2xx): mended, it is another input and another plan."""
        return self.state == "failed" and self.why.startswith("BS-2")


class SweepRow(Value):
    """A sweep that was begun: its as-of, its plan, and a run of that plan (none before a driver opened it)."""

    as_of: datetime
    plan_digest: str
    run_id: str | None
    state: str | None
    released_at: datetime | None


class StageRow(Value):
    """Progress of one stage: the same numbers in every command."""

    stage: Stage
    n_partitions: int
    n_committed: int
    n_quarantined: int
    n_rows: int
    n_rows_committed: int
    started_at: datetime | None
    updated_at: datetime | None


class QuarantinedRow(Value):
    """A partition set aside, and why."""

    stage: Stage
    number: int
    reason: str
    message: str


class FailureRow(Value):
    """A partition at which attempts failed or workers were lost, with what the last of them said; ``state`` as it stands now."""

    stage: Stage
    number: int
    state: str
    n_failures: int
    n_suspicions: int
    reason: str
    message: str


class PastFlag(Value):
    """What decide may know of an earlier flag: when its account was flagged, until when it stood, and what came of it.

    ``run_id``, ``as_of``, ``score``, ``margin``, ``reason_codes`` (those towards abuse, strongest first) and ``second_reviewer``
    are of the evidence that the newest decision speaks of; while the flag stands, of its newest evidence. ``decided_at``: when a
    person last decided, None if nobody did. ``n_evidence``: how many released runs that stand selected the account while this
    flag stood, the first included.
    """

    account_id: int | str
    opened_at: datetime
    closed_at: datetime | None
    run_id: str
    as_of: datetime
    state: FlagState
    score: float
    reason_codes: tuple[str, ...]
    decided_at: datetime | None
    n_evidence: int
    margin: float | None = None
    second_reviewer: bool = False


class Suppression(Value):
    """Accounts that are scored and not flagged from ``begins_at`` up to ``until``: why, and who answers for it.

    ``key``: the account id as text, the domain, or the value of the segment. One that was removed has ended when it was.
    """

    scope: Literal["account", "domain", "segment"]
    key: str
    owner: str
    why: str
    begins_at: datetime
    until: datetime


class FlagRow(Value):
    """A released flag as a reviewer sees it."""

    flag: Flag
    state: str
    released_at: datetime


class HeldFlag(Value):
    """A flag of a run as the table holds it, before whomever it stands. ``is_open``: it counts as its account's open flag."""

    flag: Flag
    state: str
    is_open: bool
    opened_at: datetime


class HeldOutput(Value):
    """A file that a run refers to, as the table of files holds it."""

    path: str
    sha256: str
    n_bytes: int


class ReleaseCount(Value):
    """What a release did. ``n_overtaken``: flags that did not open.

    Of these ``n_decided_kept`` for what a person had decided; ``n_evidence`` added to a flag that stands; the others said
    nothing new.
    """

    n_flags: int
    n_overtaken: int
    n_decided_kept: int = 0
    n_evidence: int = 0


class LeftFlag(Value):
    """A flag that an undo leaves, since a person touched it: ``state`` says what they made of it."""

    queue: str
    account_id: int | str
    state: str


class Undo(Value):
    """What the undo of a run does; of one that was ``applied``, in part or whole: what it did and what is still to do.

    ``n_withdrawn``: its flags that no person touched. ``n_restored``: flags of other runs that stand again in their place.
    ``n_overtaken``: its flags that were never before the reviewers, ``n_evidence`` of them evidence on flags of other runs, which
    goes with the run unless a person decided on it. ``n_turned``: evidence of later runs that says something new, or does so no
    more, now that the run's is gone. ``left``: the others.
    """

    run_id: str
    released_at: datetime | None
    begun_at: datetime | None
    undone_at: datetime | None
    by: str
    why: str
    n_withdrawn: int
    n_restored: int
    n_overtaken: int
    n_evidence: int = 0
    n_turned: int = 0
    left: tuple[LeftFlag, ...]


class StoreReader(Protocol):
    """Reads; what planning, status and reports get."""

    def run(self, run_id: str) -> RunRow:
        """That run. Raises Refused ``run_unknown``."""

    def requested(self, run_id: str) -> Request | None:
        """What a person asks of the run now. One row, without its plan: a driver looks every second."""

    def runs(self, *, limit: int = 50) -> tuple[RunRow, ...]:
        """The newest runs first."""

    def newest_finished(self, name: str) -> RunRow | None:
        """The finished run of the spec of that name that was opened last."""

    def runs_of_plan(self, plan_digest: str) -> tuple[RunRow, ...]:
        """All generations of a plan, the newest first."""

    def newest_of_plan(self, prefix: str) -> RunRow | None:
        """The newest run whose plan's digest begins so; ``prefix``: hex digits."""

    def accepted(self, run_id: str) -> tuple[Accepted, ...]:
        """What was accepted of the run that its plan pins otherwise, in order of time."""

    def stages(self, run_id: str) -> tuple[StageRow, ...]:
        """Progress of each stage laid out so far, in order."""

    def partitions(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """All partitions of a stage, by number; empty before its layout."""

    def receipts(self, run_id: str, stage: Stage) -> Iterator[Receipt]:
        """Committed receipts, by partition number."""

    def quarantined(self, run_id: str) -> tuple[QuarantinedRow, ...]:
        """Partitions set aside."""

    def holds(self, run_id: str) -> tuple[HoldRow, ...]:
        """What the run was held for, in order of time; the last is what it is held for while its state is held."""

    def approved(self, name: str, subject: Subject) -> tuple[Finding, ...]:
        """What people approved of that subject in the runs of the spec of that name, the newest approvals first."""

    def failures(self, run_id: str) -> tuple[FailureRow, ...]:
        """Partitions at which something went wrong, by stage and number; quarantined ones are among them."""

    def reused(self, run_id: str) -> frozenset[tuple[Stage, int]]:
        """Partitions whose receipt an earlier run had: no attempt was made at them."""

    def run_before(self, row: RunRow) -> RunRow | None:
        """The newest finished run of the same spec name that was opened before this one."""

    def flag_states(self, run_id: str) -> dict[str, int]:
        """How many flags of a run stand in each state (`FlagState`); empty before its release."""

    def undo(self, run_id: str) -> Undo:
        """What an undo of the run would do, or did. Raises Refused ``run_unknown`` or ``nothing_to_undo``."""

    def layouts(self, run_id: str) -> dict[Stage, str]:
        """Stage → the digest of its layout, (number, address) of each partition, as it was fixed."""

    def outputs(self, run_id: str) -> Iterator[HeldOutput]:
        """The files that a run refers to, by path."""

    def flags(self, run_id: str) -> Iterator[HeldFlag]:
        """All flags of a run, by queue and account id."""

    def audit(self, run_id: str | None = None) -> Iterator[tuple[AuditEntry, str]]:
        """The audit trail, or what it says of one run: each entry and the digest that is held for it, in order."""

    def audit_head(self) -> tuple[int, str]:
        """Number and digest of the newest entry of the trail; 0 before there is any, an empty digest where the head is gone."""

    def audit_key(self) -> bytes:
        """The key under which the trail names accounts. Raises Refused ``file_missing``."""

    def is_done(self, partition: Partition) -> bool:
        """Whether a run has committed that partition's address, and its files are there: it would not be done again."""

    def sweeps(self, name: str) -> tuple[SweepRow, ...]:
        """The sweeps of the spec of that name and their runs, by as-of, then in the order in which the runs were made."""

    def past_flags(self, queue: str, *, but_not_of: RunRow) -> Iterator[PastFlag]:
        """Every released flag of the queue that was not withdrawn, sorted by account id then opened_at.

        Left out too are the run's own, and those of runs of the same spec for the same last as-of: they answer the question
        that this run asks again, so they must neither block its flags nor make room for others.
        """

    def clock(self) -> datetime:
        """What time it is by the database, by which suppressions and flags begin and end."""

    def runs_of(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name, however they ended, the newest first."""

    def unfinished(self, run_id: str, stage: Stage) -> tuple[Partition, ...]:
        """Partitions neither committed nor quarantined, by number."""

    def released_runs(self, name: str, *, limit: int) -> tuple[RunRow, ...]:
        """The newest runs of the spec of that name that are released and not undone, the newest first."""

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

    def events(self, after: int, *, limit: int) -> tuple[QueueEvent, ...]:
        """Changes of flags after that number, in order: numbers have no gap, and what has come never changes."""

    def decided_labels(self, queue: str) -> Iterator[tuple[AccountId, bool, datetime]]:
        """What people decided in a queue, by account and time: confirmed (True) or cleared (False)."""

    def released_as(self, run_id: str) -> dict[str, int]:
        """How many flags of a run opened, or were evidence on another, kept from what a person decided, or unmoved."""

    def misstated(self, run_id: str) -> int:
        """How many flags of a run stand otherwise than claims and dispositions say."""

    def queue_names(self) -> tuple[str, ...]:
        """The queues that flags were released into, by name."""

    def flags_of(self, account_id: AccountId) -> tuple[FlagRow, ...]:
        """Every flag of released runs about an account, in any queue and state, by as-of."""

    def queue(self, queue: str | None, *, limit: int) -> tuple[FlagRow, ...]:
        """Open flags of released runs, best rank first (queue, newest as-of, rank)."""


class RunHandle(Value):
    """A run this driver holds: its epoch is the fence."""

    run_id: str
    epoch: int
    owner: str


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

    def release(self, run: RunHandle, flags: Iterator[AnyFlag], evidence: Iterable[AnyFlag] = ()) -> ReleaseCount:
        """Insert flags, then evidence on others, each in key order; the last transaction sets released_at. Repeatable."""

    def release_more(self, run_id: str, flags: Iterator[AnyFlag], *, by: str, per_day: int | None = None) -> ReleaseCount:
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
