"""The story of a run: plan, freeze, rollup, merge, gate, score, decide, reasons, prove, release.

No SQL, Dask, XGBoost or pandas here. `run` reads top to bottom. Nothing returns to an earlier step; the only loops are "next
partition" and "next attempt": they, and what may go wrong with an attempt, are `dispatch`'s, and the ledger owns both. A guard
that finds what a person must see holds the run there (`_Walk._hold_for`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from batchscore.admission import judge_input
from batchscore.budgets import judge_errors
from batchscore.command import command
from batchscore.decision import evidence_to_release, flags_to_release, make_decision, memory_read, to_reconsider
from batchscore.dispatch.dispatcher import Dispatcher
from batchscore.dispatch.forecast import Forecast, usual_seconds
from batchscore.dispatch.limits import Limits
from batchscore.dispatch.oldest_first import oldest_first
from batchscore.dispatch.requests import Requests
from batchscore.dispatch.tenure import tenure
from batchscore.dispatch.waits import Waits
from batchscore.driver import driver_name
from batchscore.errors import Held, QuarantineStop, RunFailed
from batchscore.events import (
    DecisionRecorded,
    InputJudged,
    Proven,
    Released,
    ReleaseJudged,
    RunOpened,
    StageFinished,
    StageStarted,
)
from batchscore.features.input_gate import not_approved
from batchscore.freeze_layout import closed_ranges, lay_out_freeze
from batchscore.guarding import judge_release
from batchscore.hold import Finding, Subject
from batchscore.layout import (
    Definitions,
    earlier_rollups,
    frozen_events,
    in_one_pass,
    lay_out_merge,
    lay_out_reasons,
    lay_out_reconsider,
    lay_out_rollup,
    lay_out_score,
    lay_out_shadow,
    live_table,
    rollups_of,
    with_merged,
)
from batchscore.plan import Partition, Plan, Stage, Task
from batchscore.ports import Executor, Observer, RunHandle, RunRow, Store
from batchscore.proving import prove_run
from batchscore.receipt import Output
from batchscore.report.proof import Proof
from batchscore.sources.brake import NO_BRAKE, Brake

MAX_PROBLEMS: Final = 30  # of a held run, told by its error; the ledger has all


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
        Paused: a wait lasted longer than it may, or a live source was above its critical load; or a person paused the run.
        Cancelled: a person cancelled the run.
        Interrupted: a stop was asked for, or the scheduler was lost; what is committed stays.
        Fenced: a newer driver took the run.
        RunFailed: the proof does not close, or two attempts gave different bytes.
    """
    handle, row = store.open(plan, owner=driver_name(), again=again)
    if row.state == "finished":
        return row
    observer(RunOpened(run_id=handle.run_id, epoch=handle.epoch, resumed=handle.epoch > 1))
    requests, limits = Requests(store, handle), limits or Limits()
    with tenure(plan, store, handle, requests):
        store.note_executor(handle, executor.describe())
        if limits.accepted:
            store.accept(handle, limits.accepted)
        forecast = _forecast(handle, row, store, observer, limits)
        observer = observer if forecast.deadline_at is None else forecast
        waits = Waits(handle, store, observer, limits, requests, forecast)
        dispatcher = Dispatcher(handle, executor, store, observer, waits, Path(plan.spec.store))
        walk = _Walk(plan, handle, dispatcher, waits, store, observer)
        walk.freeze()
        walk.rollup()
        walk.merge()
        walk.gate()
        walk.score()
        walk.reconsider()
        row = walk.decide()
        walk.reasons(row)
        proof = walk.prove()
        walk.limit(proof)
        walk.guard(row)
        walk.release(row, proof)
        walk.shadow()
        return store.close(handle, "finished")


def _forecast(handle: RunHandle, row: RunRow, store: Store, observer: Observer, limits: Limits) -> Forecast:
    """What tells when the run will be over. A deadline stays the run's: whoever resumes it need not say it again."""
    deadline_at = limits.deadline.after(row.created_at) if limits.deadline is not None else row.deadline_at
    if deadline_at is None:
        return Forecast(handle, store, observer, None, {})
    if deadline_at != row.deadline_at:
        store.note_deadline(handle, deadline_at)
    reader = store.reader()
    return Forecast(handle, store, observer, deadline_at, usual_seconds(reader.run_before(row), reader))


class _Walk:
    """One driver's walk over one run's stages."""

    def __init__(
        self, plan: Plan, handle: RunHandle, dispatcher: Dispatcher, waits: Waits, store: Store, observer: Observer
    ) -> None:
        self._plan = plan
        self._handle = handle
        self._store = store
        self._reader = store.reader()
        self._observer = observer
        self._dispatcher = dispatcher
        self._waits = waits
        self._definitions = Definitions.of(plan).kept(plan)

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
        reader, run_id = self._reader, self._run_id

        def lay_out() -> tuple[Partition, ...]:
            frozen = frozen_events(reader.partitions(run_id, Stage.FREEZE), reader.receipts(run_id, Stage.FREEZE))
            return lay_out_rollup(self._plan, self._definitions, earlier_rollups(reader, run_id), frozen)

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

    def reconsider(self) -> None:
        """Look closer at cleared accounts that would be flagged again, where the policy goes by what moved beside the score."""
        again = self._plan.spec.policy.again
        row = self._reader.run(self._run_id)
        if again is None or not again.looks_closer or row.decision is not None:
            return
        laid_out = self._reader.partitions(self._run_id, Stage.RECONSIDER)
        if Stage.RECONSIDER in self._reader.layouts(self._run_id) and not laid_out:
            return  # an earlier driver found nobody to look at; by now there may be somebody, whom the next run will see

        def lay_out() -> tuple[Partition, ...]:
            candidates = to_reconsider(self._plan, self._definitions, self._reader, row)
            return lay_out_reconsider(self._reader.partitions(self._run_id, Stage.SCORE), candidates, tuple(sorted(again.counts)))

        self._stage(Stage.RECONSIDER, lay_out)
        self._stop_at_quarantine(Stage.RECONSIDER)

    def decide(self) -> RunRow:
        """Freeze memory and decision, once per run: a resumed run finds them and decides nothing."""
        self._waits.until_free()
        row = self._reader.run(self._run_id)
        if row.decision is None:
            decision = make_decision(self._plan, self._definitions, self._reader, row)
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
                remedy=command("status", self._run_id, self._plan.spec.store),
            )

    def guard(self, row: RunRow) -> None:
        """Hold the run where its flags are not what earlier runs let expect, and no person approved them."""
        found = judge_release(row, self._definitions, self._reader)
        if found is None:
            return
        self._observer(ReleaseJudged(run_id=self._run_id, n_earlier=found.n_earlier, n_held=len(found.findings)))
        self._hold_for("release", "release_held", found.findings)

    def release(self, row: RunRow, proof: Proof) -> None:
        """Put the flags of the released as-of before the reviewers; none when the spec releases nothing."""
        assert proof.closes, "release is given a proof that closes"
        self._waits.until_free()  # the last moment at which a person keeps the flags from the reviewers: a release is not cut
        explained = tuple(self._reader.receipts(self._run_id, Stage.REASONS))
        flags, evidence = (made(row, self._definitions, explained) for made in (flags_to_release, evidence_to_release))
        count = self._store.release(self._handle, flags, evidence, memory_read(row))
        self._observer(
            Released(
                run_id=self._run_id,
                n_flags=count.n_flags,
                n_overtaken=count.n_overtaken,
                n_evidence=count.n_evidence,
                n_decided_kept=count.n_decided_kept,
                n_instead=count.n_instead,
                n_suppressed=count.n_suppressed,
            )
        )

    def limit(self, proof: Proof) -> None:
        """Hold the run where more accounts were set aside than its error budgets allow, and no person approved it."""
        if self._plan.spec.release != "none":
            self._hold_for(
                "errors", "errors_held", judge_errors(self._plan, self._definitions, self._reader, self._run_id, proof)
            )

    def _hold_for(self, subject: Subject, reason: str, findings: Sequence[Finding]) -> None:
        """Give the run back, held, for what a guard found; go on where it found nothing that a person has not approved."""
        if not findings:
            return
        approve = command("approve", self._run_id, self._plan.spec.store, "--by NAME")
        resume = command("resume", self._run_id, self._plan.spec.store)
        held = Held(
            reason,
            f"{len(findings)} finding(s) of {subject} need a person; everything committed is kept",
            where=f"run {self._run_id}",
            remedy=f"mend it and run the spec again; or let it go on: {approve}, then: {resume}",
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
                self._waits.until_free(brake)
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
        if stage is Stage.SCORE and (row := self._reader.run(self._run_id)).deadline_at is not None:
            left = oldest_first(left, row, self._reader)
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
        for table in dict.fromkeys(live_table(first) for first, *_ in passes) or [None]:
            brake = brakes.get(table or "", NO_BRAKE)
            tasks = [self._task(first, tuple(others), brake) for first, *others in passes if live_table(first) == table]
            self._dispatcher.attempt_all(tasks, brake)
        n_quarantined = sum(row.stage == stage for row in self._reader.quarantined(self._run_id))
        seconds = time.monotonic() - started
        self._observer(StageFinished(run_id=self._run_id, stage=stage, n_quarantined=n_quarantined, seconds=seconds))

    def _task(self, partition: Partition, beside: tuple[Partition, ...], brake: Brake) -> Task:
        store = str(self._definitions.store)
        return Task(run_id=self._run_id, store=store, partition=partition, beside=beside, gentle=brake.gentle)

    def _stop_at_quarantine(self, stage: Stage) -> None:
        """A missing snapshot, rollup or reason would make other partitions silently wrong: end the run here, scores unmade."""
        aside = [row for row in self._reader.quarantined(self._run_id) if row.stage == stage]
        if aside:
            raise QuarantineStop(
                "partition_quarantined",
                f"{len(aside)} partition(s) of {stage} were set aside; the others are committed and will be reused",
                where=f"run {self._run_id}, first: {stage} {aside[0].number}: {aside[0].message}",
                remedy=f"mend the cause, then: {command('retry', self._run_id, self._plan.spec.store, '--quarantined')}",
            )
