"""Gathers what a report is made of, at any moment of a run: the ledger, footers of score files, the decision, the reasons.

Reads only. A file that is gone or damaged leaves a gap that the report names; it never keeps the rest from being told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from batchscore.admission import judge_input
from batchscore.digest import KeyDigest
from batchscore.events import NOTHING_TO_COMPARE
from batchscore.features.coverage import coverage_at
from batchscore.features.feature_set import FeatureSet
from batchscore.features.input_gate import not_approved
from batchscore.guarding import compares_nothing
from batchscore.hold import Finding
from batchscore.layout import Definitions
from batchscore.operations.report.facts import audit_head_of, digests_of, environment_of, next_commands, run_facts, stages_of
from batchscore.operations.report.flagged import flags_of_run
from batchscore.operations.report.gaps import Gaps
from batchscore.operations.report.scored import bundles_of, drift_of, proof_of, score_histograms
from batchscore.plan import Score, Stage
from batchscore.ports import RunRow, StoreReader
from batchscore.report.limits import budgets
from batchscore.report.model import AsOfHistogram, DateCoverage, Report
from batchscore.report.proof import key_name
from batchscore.report.work import StageWork, slowest_of_all


def report_of(reader: StoreReader, run_id: str, store: str) -> Report:
    """The report of a run as it stands. ``store``: the store's folder as the reader of the report would type it.

    Raises:
        Refused: ``run_unknown`` or ``run_id_invalid``.
    """
    row = reader.run(run_id)
    gaps = Gaps()
    stages = {stage.stage: stage for stage in reader.stages(run_id)}
    reused = reader.reused(run_id)
    works = {stage: StageWork(stage, reader.receipts(run_id, stage), reused) for stage in Stage}
    histograms = score_histograms(row, reader, gaps)
    proof_state, proof = proof_of(row, reader, stages.get(Stage.SCORE), gaps)
    flags = flags_of_run(row, reader, gaps)
    rows = {
        "decide": sum(KeyDigest.parse(line.scored).n for line in proof.as_ofs) if proof and flags else None,
        "prove": sum(KeyDigest.parse(line.planned).n for line in proof.as_ofs) if proof else None,
        "release": flags.n_released if flags else None,
    }
    before = reader.run_before(row)
    drift = drift_of(before, reader, histograms, gaps) if before else None
    return Report(
        run=run_facts(row, works[Stage.FREEZE]),
        stages=tuple(stages_of(row, works, stages, rows)),
        bundles=tuple(bundles_of(row, reader, gaps, works[Stage.SCORE], proof_state, histograms)),
        proof_state=proof_state,
        proof=proof,
        threshold=row.plan.spec.policy.threshold,
        budget=row.plan.spec.policy.budget,
        histograms=tuple(AsOfHistogram(as_of=as_of, counts=counts) for as_of, counts in sorted(histograms.items())),
        warnings=warnings_of(row, reader, gaps),
        budgets=budgets(proof.as_ofs[-1], limits) if proof and (limits := row.plan.spec.limits) else (),
        holds=reader.holds(run_id),
        accepted=reader.accepted(run_id),
        coverage=tuple(coverage_of(row, reader)),
        coverage_floor=FeatureSet.thaw(row.plan.feature_set).coverage,
        drift=drift,
        flags=flags,
        rejects=tuple(rejects for work in works.values() for rejects in work.rejects()),
        alerts=tuple(alerts for work in works.values() for alerts in work.alerts()),
        slowest=slowest_of_all(works.values()),
        failures=reader.failures(run_id),
        environment=environment_of(row, works[Stage.SCORE], works[Stage.REASONS]),
        digests=digests_of(row, proof) | audit_head_of(reader),
        gaps=tuple(gaps),
        next=tuple(next_commands(row, reader, before, flags, store)),
    )


def warnings_of(row: RunRow, reader: StoreReader, gaps: Gaps) -> tuple[str, ...]:
    """Those of the plan, what its rollups tell exactly where footers could not, and that the guard compared nothing."""
    told = row.plan.warnings
    laid_out = reader.partitions(row.run_id, Stage.ROLLUP)
    receipts = tuple(reader.receipts(row.run_id, Stage.ROLLUP))
    if laid_out and len(laid_out) == len(receipts):
        with gaps.around("days of input"):
            found = judge_input(row.plan, Definitions.of(row.plan), laid_out, receipts)
            told = tuple(dict.fromkeys((*told, *found.warnings, *_approved_before(row, reader, found.findings))))
    with gaps.around("what the guard compared"):
        if compares_nothing(row, reader):
            return (*told, NOTHING_TO_COMPARE)
    return told


def _approved_before(row: RunRow, reader: StoreReader, findings: Sequence[Finding]) -> Iterator[str]:
    """Findings that did not hold this run, since a person had approved them in an earlier one of its spec."""
    here = {finding for hold in reader.holds(row.run_id) for finding in hold.findings}
    left = not_approved(findings, reader.approved(row.name, "input")) if findings else ()
    for finding in findings:
        if finding not in here and finding not in left:
            yield f"{finding.problem()}; it was approved in an earlier run"


def coverage_of(row: RunRow, reader: StoreReader) -> Iterator[DateCoverage]:
    """Of each as-of, from the first score partition that has it: they all tell the same of the data."""
    feature_set = FeatureSet.thaw(row.plan.feature_set)
    guarded: Counter[str] = Counter()
    for receipt in reader.receipts(row.run_id, Stage.SCORE):
        guarded.update({name: n for name, n in receipt.counts.items() if name.startswith("guarded ")})
    began: dict[datetime, dict[str, datetime | None]] = {}
    for partition in reader.partitions(row.run_id, Stage.SCORE):
        if isinstance(partition.work, Score) and partition.work.as_ofs[0] not in began:
            for place, as_of in enumerate(partition.work.as_ofs):
                began[as_of] = {table: moments[place] for table, moments in partition.work.began.items()}
    for as_of, tables in sorted(began.items()):
        reached = {table: coverage_at(first, as_of, feature_set.longest_window(table)) for table, first in tables.items()}
        yield DateCoverage(as_of=as_of, tables=reached, n_guarded=guarded[key_name("guarded", as_of)])
