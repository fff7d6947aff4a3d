"""The story of a run: plan, freeze, rollup, merge, gate, score, decide, reasons, prove, release.

No SQL, Dask, XGBoost or pandas here. `run` reads top to bottom. What may go wrong with an attempt is handled once, in
`_Walk._hear`. Nothing returns to an earlier step; the only loops are "next partition" and "next attempt", and the ledger owns
both. A guard that finds what a person must see holds the run there (`_Walk._hold_for`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from batchscore.admission import judge_input
from batchscore.decision import flags_to_release, make_decision
from batchscore.driver import driver_name
from batchscore.errors import (
    BatchscoreError,
    CommitUnknown,
    DatabaseFailed,
    Fenced,
    Held,
    Interrupted,
    Paused,
    Problem,
    QuarantineStop,
    Refused,
    RunFailed,
    TryAgain,
    type_and_place,
)
from batchscore.events import (
    DecisionRecorded,
    InputJudged,
    PartitionAlerted,
    PartitionCommitted,
    PartitionFailed,
    Proven,
    Released,
    RunOpened,
    StageFinished,
    StageStarted,
    Stopping,
    Waiting,
)
from batchscore.features.input_gate import not_approved
from batchscore.freeze_layout import closed_ranges, lay_out_freeze
from batchscore.hold import Finding, Subject
from batchscore.layout import (
    Definitions,
    earlier_rollups,
    frozen_events,
    in_one_pass,
    lay_out_merge,
    lay_out_reasons,
    lay_out_rollup,
    lay_out_score,
    lay_out_shadow,
    rollups_of,
    scores_of,
    with_merged,
)
from batchscore.plan import FreezeEvents, FreezeSql, Partition, Plan, Stage, Task
from batchscore.ports import Executor, Observer, RunHandle, RunRow, Store
from batchscore.proving import prove_run
from batchscore.receipt import Failed, Finished, Outcome, Output, Postponed, Receipt, Suspected
from batchscore.report.proof import Proof
from batchscore.sources.brake import LOOK_EVERY_S, NO_BRAKE, Brake, paused

MAX_PROBLEMS: Final = 30  # of a held run, told by its error; the ledger has all
MAX_FAILURES: Final = 3  # of one partition; the third quarantines it
MAX_SUSPICIONS: Final = 2  # after so many lost workers a partition runs alone in a child process
RENEW_EVERY_S: Final = 5.0
COMMIT_EVERY_S: Final = 0.5  # a commit waits for the disk: receipts that come faster share one


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What ends a walk early: a stop that is asked for, and a wait (for a live source, for workers) beyond ``max_wait``."""

    stop: threading.Event = field(default_factory=threading.Event)
    max_wait: timedelta | None = None


def run(
    plan: Plan,
    *,
    executor: Executor,
    store: Store,
    observer: Observer,
    again: bool = False,
    limits: Limits | None = None,
) -> RunRow:
    """Walk the plan to its end, from wherever an earlier driver left it. A finished run is returned as it is.

    Raises:
        Refused: another driver has the run, or an attempt found what a plan could not see.
        Held: a guard found what a person must approve first.
        Paused: a wait lasted longer than it may, or a live source was above its critical load.
        Interrupted: a stop was asked for, or the scheduler was lost; what is committed stays.
        Fenced: a newer driver took the run.
        RunFailed: the proof does not close, or two attempts gave different bytes.
    """
    handle, row = store.open(plan, owner=driver_name(), again=again)
    if row.state == "finished":
        return row
    observer(RunOpened(run_id=handle.run_id, epoch=handle.epoch, resumed=handle.epoch > 1))
    with _lease_kept(store, handle), _closed_properly(plan, store, handle):
        store.note_executor(handle, executor.describe())
        walk = _Walk(plan, handle, executor, store, observer, limits or Limits())
        walk.freeze()
        walk.rollup()
        walk.merge()
        walk.gate()
        walk.score()
        row = walk.decide()
        walk.reasons(row)
        walk.release(row, walk.prove())
        walk.shadow()
        return store.close(handle, "finished")


class _Worklist:
    """Tasks still to be handed out: none once a stop is asked for, while the brake holds, or beyond the reads it allows."""

    def __init__(self, tasks: Sequence[Task], stop: threading.Event, brake: Brake) -> None:
        self._tasks = deque(tasks)
        self._stop = stop
        self._brake = brake
        self._out: set[int] = set()  # numbers of the partitions that are under way

    def next(self) -> Task | None:
        if not self._tasks or self._stop.is_set() or self._brake.verdict().move != "go":
            return None
        others = self._out - {self._tasks[0].partition.number}  # another task of the same partition takes the older one's place
        if self._brake.most_reads is not None and len(others) >= self._brake.most_reads:
            return None
        task = self._tasks.popleft()
        self._out.add(task.partition.number)
        return task

    def put(self, task: Task) -> None:
        self._tasks.append(task)

    def put_first(self, task: Task) -> None:
        self._tasks.appendleft(task)

    def came_home(self, task: Task) -> None:
        self._out.discard(task.partition.number)

    def __len__(self) -> int:
        return len(self._tasks)


class _Walk:
    """One driver's walk over one run's stages."""

    def __init__(
        self, plan: Plan, handle: RunHandle, executor: Executor, store: Store, observer: Observer, limits: Limits
    ) -> None:
        self._plan = plan
        self._handle = handle
        self._executor = executor
        self._store = store
        self._reader = store.reader()
        self._observer = observer
        self._stop, self._max_wait = limits.stop, limits.max_wait
        self._definitions = Definitions.of(plan).kept(plan)
        self._waiting = ""
        self._waiting_since = 0.0

    @property
    def _run_id(self) -> str:
        return self._handle.run_id

    def freeze(self) -> None:
        """Bring the accounts, and the events of live tables, into immutable files; live tables gently, one after the other."""
        brakes = {table: Brake(source.sql) for table, source in self._plan.spec.sources.items() if source.sql is not None}

        def lay_out() -> tuple[Partition, ...]:
            closed = closed_ranges(self._plan, self._reader, self._run_id)
            return lay_out_freeze(self._plan, self._definitions, self._run_id, closed)

        self._stage(Stage.FREEZE, lay_out, brakes=brakes)
        self._stop_at_quarantine(Stage.FREEZE)

    def rollup(self) -> None:
        """Bring the events into partial aggregates."""

        def lay_out() -> tuple[Partition, ...]:
            earlier = earlier_rollups(self._reader, self._run_id)
            froze = self._reader.partitions(self._run_id, Stage.FREEZE), self._reader.receipts(self._run_id, Stage.FREEZE)
            return lay_out_rollup(self._plan, self._definitions, earlier, frozen_events(*froze))

        self._stage(Stage.ROLLUP, lay_out)
        self._stop_at_quarantine(Stage.ROLLUP)

    def merge(self) -> None:
        """Bring the rollups of a closed month, and of one day, into one file each; most runs have little or nothing to do."""
        self._stage(Stage.MERGE, lambda: lay_out_merge(self._definitions, self._rollups(Stage.ROLLUP)))
        self._stop_at_quarantine(Stage.MERGE)

    def gate(self) -> None:
        """Hold the run where a day of input is missing or unusual and no person approved it; what is silent is told always."""
        laid_out = self._reader.partitions(self._run_id, Stage.ROLLUP)
        found = judge_input(self._plan, self._definitions, laid_out, self._reader.receipts(self._run_id, Stage.ROLLUP))
        approved = self._reader.approved(self._plan.spec.name, "input") if found.findings else ()
        held = not_approved(found.findings, approved)
        self._observer(
            InputJudged(
                run_id=self._run_id,
                n_days=found.n_days,
                n_new=found.n_new,
                n_held=len(held),
                n_approved=len(found.findings) - len(held),
                warnings=tuple(warning for warning in found.warnings if warning not in self._plan.warnings),
            )
        )
        self._hold_for("input", "input_held", held)

    def score(self) -> None:
        """Make features and scores, by shadow bundles in the same pass; a quarantined partition costs only its own accounts."""
        reader, run_id = self._reader, self._run_id

        def lay_out() -> tuple[Partition, ...]:
            merges = reader.partitions(run_id, Stage.MERGE)
            rollups = with_merged(self._rollups(Stage.ROLLUP), merges, self._rollups(Stage.MERGE))
            return lay_out_score(self._plan, self._definitions, reader.receipts(run_id, Stage.FREEZE), rollups)

        score = self._laid_out(Stage.SCORE, lay_out)
        if self._definitions.shadows:
            self._laid_out(Stage.SHADOW, lambda: lay_out_shadow(self._definitions, score))
        self._stage(Stage.SCORE, lay_out, beside=self._store.unfinished(self._handle, Stage.SHADOW))

    def shadow(self) -> None:
        """Score by shadow bundles what came not with `score`. After the release: a shadow is in no flag's way."""
        if not self._definitions.shadows:
            return
        self._stage(Stage.SHADOW, lambda: lay_out_shadow(self._definitions, self._reader.partitions(self._run_id, Stage.SCORE)))
        for shadow in self._definitions.shadows:
            name = self._plan.bundle_names()[shadow.sha256]
            proof = prove_run(self._plan, self._definitions, self._reader, self._run_id, shadow)
            self._require_closed(proof, f", as the shadow bundle {name!r} was to score them")

    def decide(self) -> RunRow:
        """Freeze memory and decision, once per run: a resumed run finds them and decides nothing."""
        row = self._reader.run(self._run_id)
        if row.decision is None:
            laid_out = self._reader.partitions(self._run_id, Stage.SCORE)
            scores = scores_of(laid_out, self._reader.receipts(self._run_id, Stage.SCORE))
            past = self._reader.past_flags(self._plan.spec.policy.queue, but_not_of=row)
            decision = make_decision(self._plan, self._definitions, scores, past)
            row = self._store.record_decision(self._handle, decision.file, decision.memory)
            self._observer(
                DecisionRecorded(run_id=self._run_id, n_selected=decision.n_selected, n_to_release=decision.n_to_release)
            )
        return row

    def reasons(self, row: RunRow) -> None:
        """Explain what decide selected, and nothing else."""
        assert row.decision is not None
        decision = row.decision
        self._stage(Stage.REASONS, lambda: lay_out_reasons(self._reader.partitions(self._run_id, Stage.SCORE), decision))
        self._stop_at_quarantine(Stage.REASONS)

    def prove(self) -> Proof:
        """Account for every account, or stop."""
        proof = prove_run(self._plan, self._definitions, self._reader, self._run_id)
        self._observer(Proven(run_id=self._run_id, closes=proof.closes, n_as_ofs=len(proof.as_ofs)))
        self._require_closed(proof, "; nothing is released")
        return proof

    def _require_closed(self, proof: Proof, so: str) -> None:
        if not proof.closes:
            raise RunFailed(
                "proof_failed",
                f"some accounts are not accounted for exactly once{so}",
                where=f"run {self._run_id}",
                remedy=f"batchscore status {self._run_id} --store {self._plan.spec.store}",
            )

    def release(self, row: RunRow, proof: Proof) -> None:
        """Put the flags of the released as-of before the reviewers; none when the spec releases nothing."""
        assert proof.closes, "release is given a proof that closes"
        flags = flags_to_release(row, self._definitions, self._reader.receipts(self._run_id, Stage.REASONS))
        count = self._store.release(self._handle, flags)
        self._observer(Released(run_id=self._run_id, n_flags=count.n_flags, n_overtaken=count.n_overtaken))

    def _hold_for(self, subject: Subject, reason: str, findings: Sequence[Finding]) -> None:
        """Give the run back, held, for what a guard found; go on where it found nothing that a person has not approved."""
        if not findings:
            return
        store = f"--store {self._plan.spec.store}"
        approve = f"batchscore approve {self._run_id} --by NAME {store}"
        held = Held(
            reason,
            f"{len(findings)} finding(s) of {subject} need a person; everything committed is kept",
            where=f"run {self._run_id}",
            remedy=f"mend it and run the spec again; or let it go on: {approve}, then: batchscore resume {self._run_id} {store}",
            problems=tuple(finding.problem() for finding in findings[:MAX_PROBLEMS]),
        )
        self._store.hold(self._handle, subject, findings, f"{held.code} {held.reason}: {held.what}")
        raise held

    def _rollups(self, stage: Stage) -> dict[str, list[Output]]:
        return rollups_of(self._reader.partitions(self._run_id, stage), self._reader.receipts(self._run_id, stage))

    def _laid_out(
        self, stage: Stage, lay_out: Callable[[], tuple[Partition, ...]], brakes: Iterable[Brake] = ()
    ) -> tuple[Partition, ...]:
        """The stage's partitions, cut once: a resumed run finds them."""
        partitions = self._reader.partitions(self._run_id, stage)
        if not partitions:
            for brake in brakes:
                self._wait_for(brake)
            partitions = lay_out()
            self._store.lay_out(self._handle, stage, partitions)
        return partitions

    def _stage(
        self,
        stage: Stage,
        lay_out: Callable[[], tuple[Partition, ...]],
        *,
        beside: Sequence[Partition] = (),
        brakes: Mapping[str, Brake] = MappingProxyType({}),
    ) -> None:
        """Every partition of the stage: committed, or quarantined. Partitions of another stage may be done ``beside`` them.

        ``brakes``: of the live tables that it reads, which are read one after the other.
        """
        started = time.monotonic()
        partitions = self._laid_out(stage, lay_out, brakes.values())
        left = self._store.unfinished(self._handle, stage)
        n_rows = sum(partition.n_rows for partition in partitions)
        n_rows_left = sum(partition.n_rows for partition in left)
        self._observer(
            StageStarted(
                run_id=self._run_id,
                stage=stage,
                n_partitions=len(partitions),
                n_rows=n_rows,
                n_done=len(partitions) - len(left),
                n_rows_done=n_rows - n_rows_left,
            )
        )
        passes = in_one_pass(left, beside)
        for table in dict.fromkeys(_live_table(partitions[0], brakes) for partitions in passes):
            self._attempt_all([one for one in passes if _live_table(one[0], brakes) == table], brakes.get(table, NO_BRAKE))
        n_quarantined = sum(row.stage == stage for row in self._reader.quarantined(self._run_id))
        seconds = time.monotonic() - started
        self._observer(StageFinished(run_id=self._run_id, stage=stage, n_quarantined=n_quarantined, seconds=seconds))

    def _attempt_all(self, passes: Sequence[tuple[Partition, ...]], brake: Brake) -> None:
        store, gentle = str(self._definitions.store), brake.gentle
        tasks = [
            Task(run_id=self._run_id, store=store, partition=first, beside=tuple(beside), gentle=gentle)
            for first, *beside in passes
        ]
        worklist = _Worklist(tasks, self._stop, brake)
        while worklist:
            self._wait_for(brake)
            self._attempt_some(worklist, brake)
        self._stop_if_asked()
        if brake.worst_lag_s is not None:
            self._store.note_held_back(self._handle, 0.0, brake.worst_lag_s)

    def _attempt_some(self, worklist: _Worklist, brake: Brake) -> None:
        """Until nothing is under way and nothing more is handed out: all is done, or the brake holds."""
        told = False
        waiting: list[Finished] = []
        committed_at = float("-inf")
        try:
            for outcomes in self._executor.outcomes(worklist):
                self._tell_waiting(self._held_by(brake) or self._executor.waiting())
                waiting += [outcome for outcome in outcomes if isinstance(outcome, Finished)]
                # Idle: nothing more comes soon. And a failure may be of a partition whose receipt waits: the receipt was first.
                at_once = not outcomes or not all(isinstance(outcome, Finished) for outcome in outcomes)
                if waiting and (at_once or time.monotonic() - committed_at >= COMMIT_EVERY_S):
                    self._commit(waiting)
                    waiting, committed_at = [], time.monotonic()
                for outcome in outcomes:
                    self._hear(outcome, worklist)
                if self._stop.is_set() and not told:
                    self._observer(Stopping(run_id=self._run_id))
                    told = True
        finally:
            self._commit(waiting)  # what came home counts, whatever ended the stage
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stop.is_set():
            raise Interrupted("interrupted", "stopped on request; everything committed is kept")

    def _wait_for(self, brake: Brake) -> None:
        """Return when the brake lets go; meanwhile nothing is under way.

        Raises:
            Paused: it does not within ``max_wait``, or the source is above its critical load.
            Interrupted: a stop was asked for.
        """
        began = time.monotonic()
        try:
            while reason := self._held_by(brake):
                self._tell_waiting(reason)
                self._stop.wait(LOOK_EVERY_S)
                self._stop_if_asked()
        finally:
            if self._waiting:
                self._store.note_held_back(self._handle, time.monotonic() - began, brake.worst_lag_s)
        self._tell_waiting("")

    def _held_by(self, brake: Brake) -> str:
        """Why a live source is not read at the moment; empty when it is.

        Raises:
            Paused: ``source_overloaded``.
        """
        verdict = brake.verdict()
        if verdict.move == "end":
            raise paused(verdict)
        return verdict.reason

    def _tell_waiting(self, reason: str) -> None:
        if reason != self._waiting:
            if not self._waiting:
                self._waiting_since = time.monotonic()
            self._waiting = reason
            self._store.note_waiting(self._handle, reason)
            self._observer(Waiting(run_id=self._run_id, reason=reason))
        waited = timedelta(seconds=time.monotonic() - self._waiting_since)
        if reason and self._max_wait is not None and waited >= self._max_wait:
            raise Paused("source_paused", f"waited as long as it was told to: {reason}")

    def _commit(self, finished: Sequence[Finished]) -> None:
        if not finished:
            return
        came = {stage: [pair for outcome in finished for pair in _of_stage(outcome, stage)] for stage in Stage}
        for pairs in filter(None, came.values()):  # a transaction for each stage: its numbers say which are new
            new = set(self._store.commit(self._handle, [receipt for _, receipt in pairs]))
            for partition, receipt in pairs:
                if partition.number in new:
                    self._tell_committed(partition, receipt)

    def _tell_committed(self, partition: Partition, receipt: Receipt) -> None:
        stage, number = partition.stage, partition.number
        for alert in receipt.alerts:
            self._observer(PartitionAlerted(run_id=self._run_id, stage=stage, number=number, alert=alert))
        seconds = sum(receipt.seconds.values())
        self._observer(
            PartitionCommitted(run_id=self._run_id, stage=stage, number=number, n_rows=partition.n_rows, seconds=seconds)
        )

    def _hear(self, outcome: Outcome, worklist: _Worklist) -> None:
        """What an outcome means: a failure counts, a lost worker only accuses, and who gave way comes first again.

        Of partitions that were done in one pass nobody knows whose failure it was: it counts once they are tried apart.
        """
        if not (isinstance(outcome, Suspected) and outcome.running):
            worklist.came_home(outcome.task)
        if isinstance(outcome, Postponed):
            if outcome.reason == "source_overloaded":
                raise Paused(outcome.reason, outcome.message)
            worklist.put_first(outcome.task)
        elif isinstance(outcome, Suspected):
            self._suspect(outcome, worklist)
        elif isinstance(outcome, Failed) and outcome.task.beside:
            for task in _apart(outcome.task):
                worklist.put(task)
            self._tell_failure(outcome.task, outcome.reason, quarantined=False)
        elif isinstance(outcome, Failed):
            if outcome.stops_run:
                found = Problem(where=f"{outcome.task.partition.stage} {outcome.task.partition.number}", what=outcome.message)
                raise Refused(outcome.reason, "found while the run was under way", where=f"run {self._run_id}", problems=(found,))
            limit = 1 if outcome.final else MAX_FAILURES
            quarantined = self._store.count_failure(
                self._handle, outcome.task, outcome.reason, outcome.message, quarantine_at=limit
            )
            if not quarantined:
                worklist.put(outcome.task)
            self._tell_failure(outcome.task, outcome.reason, quarantined=quarantined)

    def _suspect(self, outcome: Suspected, worklist: _Worklist) -> None:
        suspicions = self._store.count_suspicion(self._handle, outcome.task)
        alone = outcome.task.isolated or suspicions >= MAX_SUSPICIONS
        if not outcome.running or (alone and not outcome.task.isolated):
            first, *others = _apart(outcome.task) if alone else (outcome.task,)
            for task in others:
                worklist.put(task)
            worklist.put_first(first.model_copy(update={"isolated": alone}))
        self._tell_failure(outcome.task, "worker_lost", quarantined=False)

    def _tell_failure(self, task: Task, reason: str, *, quarantined: bool) -> None:
        partition = task.partition
        self._observer(
            PartitionFailed(
                run_id=self._run_id, stage=partition.stage, number=partition.number, reason=reason, quarantined=quarantined
            )
        )

    def _stop_at_quarantine(self, stage: Stage) -> None:
        """A missing snapshot, rollup or reason would make other partitions silently wrong: end the run here, scores unmade."""
        aside = [row for row in self._reader.quarantined(self._run_id) if row.stage == stage]
        if aside:
            raise QuarantineStop(
                "partition_quarantined",
                f"{len(aside)} partition(s) of {stage} were set aside; the others are committed and will be reused",
                where=f"run {self._run_id}, first: {stage} {aside[0].number}: {aside[0].message}",
                remedy=f"mend the cause, then: batchscore retry {self._run_id} --quarantined --store {self._plan.spec.store}",
            )


def _live_table(partition: Partition, brakes: Mapping[str, Brake]) -> str:
    """The live table that a partition reads; empty when it reads none."""
    work = partition.work
    return work.table if isinstance(work, (FreezeSql, FreezeEvents)) and work.table in brakes else ""


def _of_stage(outcome: Finished, stage: Stage) -> Iterator[tuple[Partition, Receipt]]:
    """The partitions of the stage among those that were done, with their receipts."""
    partitions = (outcome.task.partition, *outcome.task.beside)
    pairs = zip(partitions, outcome.receipt.apart(), strict=True)
    return (pair for pair in pairs if pair[0].stage is stage)


def _apart(task: Task) -> list[Task]:
    """The task's own partition alone, and those beside it, alone; but one of another stage waits for that stage."""
    mine = (partition for partition in (task.partition, *task.beside) if partition.stage is task.partition.stage)
    return [task.model_copy(update={"partition": partition, "beside": ()}) for partition in mine]


@contextmanager
def _lease_kept(store: Store, handle: RunHandle) -> Iterator[None]:
    """Renew the lease in the background: a driver busy with a long step is alive. The fence is the epoch, not the lease."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_EVERY_S):
            try:
                store.renew(handle)
            except Fenced:
                return  # the next write of the walk says so
            except BatchscoreError:
                continue  # the database is away: it may come back before the lease runs out

    thread = threading.Thread(target=renew, name="batchscore-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _closed_properly(plan: Plan, store: Store, handle: RunHandle) -> Iterator[None]:
    """Leave the run in the state that tells the next driver, and the next person, what happened."""
    try:
        yield
    except (Fenced, Held):
        raise  # somebody else's run now; or given back already, with what it is held for
    except (TryAgain, CommitUnknown) as error:  # the database is away: there is nobody to tell, and the lease runs out by itself
        resume = f"batchscore resume {handle.run_id} --store {plan.spec.store}"
        raise Interrupted(error.reason, error.what, where=f"run {handle.run_id}", remedy=f"once it is back: {resume}") from error
    except (DatabaseFailed, Interrupted, Paused) as error:
        paused = isinstance(error, Paused)
        with suppress(BatchscoreError):  # a full disk may keep the ledger from hearing of it: then the driver is gone
            store.close(handle, "held" if paused else "interrupted", str(error))
        first = f"{error.remedy}; then: " if error.remedy else ""
        resume = f"batchscore resume {handle.run_id} --store {plan.spec.store}"
        kind = Paused if paused else Interrupted
        raise kind(error.reason, error.what, where=f"run {handle.run_id}", remedy=f"{first}{resume}") from error
    except BatchscoreError as error:
        store.close(handle, "failed", str(error))
        raise
    except Exception as error:
        with suppress(BatchscoreError):  # what went wrong first is what is told
            store.close(handle, "failed", type_and_place(error))
        raise
