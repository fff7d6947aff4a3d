"""Gathers what a report is made of, at any moment of a run: the ledger, footers of score files, the decision, the reasons.

Reads only. A file that is gone or damaged leaves a gap that the report names; it never keeps the rest from being told.
"""

from __future__ import annotations

import os
import re
import shlex
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.admission import judge_input
from batchscore.decide.table import FLAG, RESERVE, WITHHELD, of_standing
from batchscore.digest import KeyDigest
from batchscore.errors import BatchscoreError, Refused
from batchscore.events import NOTHING_TO_COMPARE
from batchscore.features.coverage import coverage_at
from batchscore.features.feature_set import FeatureSet
from batchscore.features.input_gate import not_approved
from batchscore.files import verified
from batchscore.flag import ReleasedAs
from batchscore.guarding import compares_nothing, histograms_in
from batchscore.hold import Finding
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.layout import Definitions, decided_rows
from batchscore.models.bundle import manifest_of
from batchscore.observe.text import plain
from batchscore.plan import Reference, Score, Stage
from batchscore.ports import RunRow, StageRow, StoreReader
from batchscore.proving import prove_run
from batchscore.receipt import HELD_BACK, Receipt
from batchscore.report.drift import drift_against
from batchscore.report.flags import count_flags
from batchscore.report.histogram import Counts, psi
from batchscore.report.limits import budgets
from batchscore.report.model import (
    AsOfHistogram,
    BundleReport,
    DateCoverage,
    Drift,
    Flags,
    ProofState,
    Report,
    RunFacts,
    StageReport,
)
from batchscore.report.page import page
from batchscore.report.proof import Proof, key_name
from batchscore.report.work import StageWork, slowest_of_all
from batchscore.sources.segment import SEGMENT

_FOOTER_THREADS: Final = 8
_ADDRESS: Final = re.compile(r"\s*\S+://[^\s,]+")
_LIBRARY: Final = "library "


class Gaps(list[str]):
    """What could not be read, in words."""

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Go on after a failure to read, and remember it. Foreign messages are left out: they may hold a path or a value."""
        try:
            yield
        except BatchscoreError as error:
            self.append(f"{what}: {error.what} [{error.where}]")
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            self.append(f"{what}: cannot be read ({type(error).__name__})")


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
    proof_state, proof = _proof(row, reader, stages.get(Stage.SCORE), gaps)
    flags = _flags(row, reader, gaps)
    rows = {
        "decide": sum(KeyDigest.parse(line.scored).n for line in proof.as_ofs) if proof and flags else None,
        "prove": sum(KeyDigest.parse(line.planned).n for line in proof.as_ofs) if proof else None,
        "release": flags.n_released if flags else None,
    }
    before = reader.run_before(row)
    drift = _drift(before, reader, histograms, gaps) if before else None
    return Report(
        run=_run_facts(row, works[Stage.FREEZE]),
        stages=tuple(_stages(row, works, stages, rows)),
        bundles=tuple(_bundles(row, reader, gaps, works[Stage.SCORE], proof_state, histograms)),
        proof_state=proof_state,
        proof=proof,
        threshold=row.plan.spec.policy.threshold,
        budget=row.plan.spec.policy.budget,
        histograms=tuple(AsOfHistogram(as_of=as_of, counts=counts) for as_of, counts in sorted(histograms.items())),
        warnings=_warnings(row, reader, gaps),
        budgets=budgets(proof.as_ofs[-1], limits) if proof and (limits := row.plan.spec.limits) else (),
        holds=reader.holds(run_id),
        accepted=reader.accepted(run_id),
        coverage=tuple(_coverage(row, reader)),
        coverage_floor=FeatureSet.thaw(row.plan.feature_set).coverage,
        drift=drift,
        flags=flags,
        rejects=tuple(rejects for work in works.values() for rejects in work.rejects()),
        alerts=tuple(alerts for work in works.values() for alerts in work.alerts()),
        slowest=slowest_of_all(works.values()),
        failures=reader.failures(run_id),
        environment=_environment(row, works[Stage.SCORE], works[Stage.REASONS]),
        digests=_digests(row, proof) | _head(reader),
        gaps=tuple(gaps),
        next=tuple(_next(row, reader, before, flags, shlex.quote(store))),
    )


def write_page(report: Report, path: Path) -> Path:
    """Draw the report as one HTML page, in place of an older one; a reader never meets half a page.

    Raises:
        Refused: ``report_unwritable``.
    """
    return write_html(page(report, plain=plain), path)


def write_html(drawn: str, path: Path) -> Path:
    """Write a page in place of an older one; a reader never meets half a page.

    Raises:
        Refused: ``report_unwritable``.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(drawn, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        what = f"the page cannot be written: {os.strerror(error.errno or 0)}"
        raise Refused("report_unwritable", what, where=str(path), remedy="name another file: --html FILE") from error
    return path


def score_histograms(
    row: RunRow, reader: StoreReader, gaps: list[str], shadow: Reference | None = None
) -> dict[datetime, Counts]:
    """As-of → counts of all scores committed so far, of those that flags come from or of a shadow bundle's.

    Not hashed: the proof hashes these files, and is not readable where one is damaged.
    """
    folder = Path(row.plan.spec.store)
    receipts = reader.receipts(row.run_id, Stage.SCORE) if shadow is None else _shadow_receipts(row, reader, shadow)
    paths = [folder / output.path for receipt in receipts for output in receipt.outputs if output.role == "scores"]
    found, missing = histograms_in(paths)
    if missing:
        gaps.append(f"histograms: {missing} of {len(paths)} score files of {row.run_id} are gone or cannot be read")
    return found


def _proof(
    row: RunRow, reader: StoreReader, score: StageRow | None, gaps: Gaps, shadow: Reference | None = None
) -> tuple[ProofState, Proof | None]:
    """The proof, once every score partition is committed or set aside; before that nothing can close."""
    if score is None or score.n_committed + score.n_quarantined < score.n_partitions:
        return "not yet", None
    with gaps.around("proof"):
        proof = prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id, shadow)
        return "closes" if proof.closes else "does not close", proof
    return "not readable", None


def _warnings(row: RunRow, reader: StoreReader, gaps: Gaps) -> tuple[str, ...]:
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


def _coverage(row: RunRow, reader: StoreReader) -> Iterator[DateCoverage]:
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


def _bundles(
    row: RunRow,
    reader: StoreReader,
    gaps: Gaps,
    score: StageWork,
    proof_state: ProofState,
    histograms: dict[datetime, Counts],
) -> Iterator[BundleReport]:
    """``score``, ``proof_state`` and ``histograms`` are those of the bundle that flags."""
    aside = [(quarantined.stage, quarantined.number) for quarantined in reader.quarantined(row.run_id)]
    names = row.plan.bundle_names()
    flagging, *shadows = row.plan.bundles
    n_aside = sum(stage is Stage.SCORE for stage, _ in aside)
    yield _bundle(names[flagging.sha256], flagging, score, n_quarantined=n_aside, proof_state=proof_state)
    shadow_stage = next((stage for stage in reader.stages(row.run_id) if stage.stage is Stage.SHADOW), None)
    reused, before = reader.reused(row.run_id), reader.run_before(row)
    for shadow in shadows:
        name = names[shadow.sha256]
        mine = score_histograms(row, reader, gaps, shadow)
        work = StageWork(Stage.SHADOW, _shadow_receipts(row, reader, shadow), reused)
        numbers = _shadow_numbers(row, reader, shadow)
        n_aside = sum(stage is Stage.SHADOW and number in numbers for stage, number in aside)
        state, _ = _proof(row, reader, shadow_stage, gaps, shadow)
        both = max(mine.keys() & histograms.keys(), default=None)
        yield _bundle(name, shadow, work, n_quarantined=n_aside, proof_state=state).model_copy(
            update={
                "shadow": True,
                "histograms": tuple(AsOfHistogram(as_of=as_of, counts=counts) for as_of, counts in sorted(mine.items())),
                "psi": psi(mine[both], histograms[both]) if both else None,
                "drift": _shadow_drift(before, reader, name, mine, gaps) if before else None,
            }
        )


def _bundle(name: str, bundle: Reference, work: StageWork, *, n_quarantined: int, proof_state: ProofState) -> BundleReport:
    n_rejected = sum(rejects.n for rejects in work.rejects())
    return BundleReport(
        name=name,
        digest=bundle.sha256,
        shadow=False,
        n_scores=work.rows - n_rejected,
        n_rejected=n_rejected,
        n_quarantined=n_quarantined,
        n_made=work.rows_made,
        own_s=round(work.own_s, 3),
        proof_state=proof_state,
    )


def _shadow_numbers(row: RunRow, reader: StoreReader, shadow: Reference) -> frozenset[int]:
    """The partitions of a shadow bundle."""
    laid_out = reader.partitions(row.run_id, Stage.SHADOW)
    return frozenset(partition.number for partition in laid_out if getattr(partition.work, "bundle", None) == shadow)


def _shadow_receipts(row: RunRow, reader: StoreReader, shadow: Reference) -> Iterator[Receipt]:
    mine = _shadow_numbers(row, reader, shadow)
    return (receipt for receipt in reader.receipts(row.run_id, Stage.SHADOW) if receipt.number in mine)


def _shadow_drift(before: RunRow, reader: StoreReader, name: str, histograms: dict[datetime, Counts], gaps: Gaps) -> Drift | None:
    """Against the bundle of that name in the run before, whether it flagged there or not."""
    for place, bundle in enumerate(before.plan.bundles):
        if before.plan.bundle_names()[bundle.sha256] == name:
            theirs = score_histograms(before, reader, gaps, bundle if place else None)
            return drift_against(before.run_id, histograms, theirs)
    return None


def _drift(before: RunRow, reader: StoreReader, histograms: dict[datetime, Counts], gaps: Gaps) -> Drift | None:
    return drift_against(before.run_id, histograms, score_histograms(before, reader, gaps))


def _flags(row: RunRow, reader: StoreReader, gaps: Gaps) -> Flags | None:
    """None until decide has run."""
    if row.decision is None:
        return None
    with gaps.around("flags"):
        held = decided_rows(row.decision, FLAG, RESERVE, WITHHELD)
        aside = of_standing(held, WITHHELD)["withheld"].to_pylist()
        counted = count_flags(
            of_standing(held, FLAG).select(["as_of", "release"]),
            _explained(row, reader, gaps, of_standing(held, FLAG)),
            segment=row.plan.spec.segment,
            sentences=_sentences(row, gaps),
            states=reader.flag_states(row.run_id),
        )
        released_as = reader.released_as(row.run_id) if row.released_at is not None else {}
        aside_by_why = dict(sorted(Counter(aside).items()))
        more = {
            "n_reserve": len(of_standing(held, RESERVE)),
            "withheld": aside_by_why,
            "n_decided_kept": released_as.get(ReleasedAs.KEPT, 0),
            "n_evidence": released_as.get(ReleasedAs.EVIDENCE, 0),
            "n_instead": released_as.get(ReleasedAs.INSTEAD, 0),
            "n_suppressed": (n_suppressed := released_as.get(ReleasedAs.SUPPRESSED, 0)),
            "n_overtaken": counted.n_overtaken - n_suppressed,
        }
        return counted.model_copy(update=more)
    return None


def _explained(row: RunRow, reader: StoreReader, gaps: Gaps, flags: pa.Table) -> Iterator[pa.Table]:
    """Reasons of flags: the reserve, and evidence on flags that stand, are explained beside them and are none."""
    as_ofs = pc.unique(flags["as_of"]).to_pylist()
    of_date = {as_of: flags.filter(pc.equal(flags["as_of"], pa.scalar(as_of, MOMENT)))[ACCOUNT_ID] for as_of in as_ofs}
    folder = Path(row.plan.spec.store)
    for receipt in reader.receipts(row.run_id, Stage.REASONS):
        for output in receipt.outputs:
            table = None
            with gaps.around(f"reasons of partition {receipt.number}"):
                path = verified(str(folder / output.path), output.sha256)
                table = pq.read_table(path, columns=["as_of", "reasons", SEGMENT, ACCOUNT_ID])
            if table is not None:
                for as_of in set(pc.unique(table["as_of"]).to_pylist()) & of_date.keys():
                    is_flag = pc.is_in(table[ACCOUNT_ID], value_set=of_date[as_of].combine_chunks())
                    yield table.filter(pc.and_(pc.equal(table["as_of"], pa.scalar(as_of, MOMENT)), is_flag))


def _sentences(row: RunRow, gaps: Gaps) -> dict[str, str]:
    """Reason code → its sentence, with … where the value of an account would stand."""
    sentences: dict[str, str] = {}
    for bundle in row.plan.bundles:
        with gaps.around("sentences of the reasons"):
            for template in manifest_of(bundle).reasons.values():
                sentences.setdefault(template.code, template.sentence.replace("{value}", "…"))
    return sentences


def _run_facts(row: RunRow, freeze: StageWork) -> RunFacts:
    spec = row.plan.spec
    lags = [lag for lag in (row.worst_lag_s, freeze.worst_lag_s) if lag is not None]
    return RunFacts(
        run_id=row.run_id,
        name=row.name,
        state=row.state,
        why=row.why,
        queue=spec.policy.queue,
        release=spec.release,
        as_ofs=spec.as_ofs(),
        opened_at=row.created_at,
        finished_at=row.finished_at,
        released_at=row.released_at,
        undo_begun_at=row.undo_begun_at,
        undone_at=row.undone_at,
        generation=row.generation,
        n_drivers=row.epoch,
        held_back_s=round(row.held_back_s + freeze.attempt_s.get(HELD_BACK, 0.0), 3),
        worst_lag_s=max(lags, default=None),
        deadline_at=row.deadline_at,
        expected_at=row.expected_at,
        late_since=row.late_since,
    )


def _stages(
    row: RunRow, works: dict[Stage, StageWork], stages: dict[Stage, StageRow], rows: dict[str, int | None]
) -> Iterator[StageReport]:
    """All stages of the plan. Those of the driver took from the ledger's mark before them to the one after."""
    scored, explained = stages.get(Stage.SCORE), stages.get(Stage.REASONS)
    seconds = {
        "decide": _seconds(scored.updated_at, explained.started_at) if scored and explained else None,
        "release": _seconds(explained.updated_at, row.released_at) if explained else None,
    }
    for planned in row.plan.stages:
        if planned.stage in set(Stage):
            stage = Stage(planned.stage)
            yield works[stage].report(planned, stages.get(stage))
        else:
            yield StageReport(
                stage=planned.stage,
                does=planned.does,
                rows_planned=planned.n_rows,
                rows_done=rows.get(planned.stage),
                seconds=seconds.get(planned.stage),
            )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start and end else None


def _environment(row: RunRow, score: StageWork, reasons: StageWork) -> dict[str, str]:
    """What decides bits, and how the attempts ran; of the executor its kind and size, not its address."""
    libraries = {
        name.removeprefix(_LIBRARY): version for name, version in sorted(row.plan.pinned.items()) if name.startswith(_LIBRARY)
    }
    executor = _ADDRESS.sub("", row.executor) or "unknown"
    ran = {"executor": executor}
    for part, work in (("scorer", score), ("explainer", reasons)):
        if work.scorers:
            ran[part] = ", ".join(f"{name} ({n:,} partitions)" for name, n in sorted(work.scorers.items()))
    return ran | {"rows a partition": f"{row.plan.spec.partition_rows:,}", **libraries}


def _digests(row: RunRow, proof: Proof | None) -> dict[str, str]:
    pinned = {name: value for name, value in sorted(row.plan.pinned.items()) if not name.startswith(_LIBRARY)}
    found = {"plan": row.plan.digest} | {name: value for name, value in pinned.items() if name not in {"spec", "release"}}
    for name, file in (("decision", row.decision), ("memory", row.memory)):
        if file is not None:
            found[name] = file.sha256
    return found | ({"accounts, by key": proof.accounts} if proof else {})


def _head(reader: StoreReader) -> dict[str, str]:
    """The audit trail's newest entry: a report that is kept elsewhere shows later that its tail was cut."""
    number, digest = reader.audit_head()
    return {f"audit trail, entry {number:,}": digest} if number else {}


def _next(row: RunRow, reader: StoreReader, before: RunRow | None, flags: Flags | None, store: str) -> Iterable[str]:
    holds = reader.holds(row.run_id)
    if row.state == "running":
        yield f"batchscore watch {row.run_id} --store {store}"
    elif row.request is not None and row.request.wish == "paused":
        yield f"batchscore continue {row.run_id} --store {store}"
    elif row.state == "held" and holds and holds[-1].approved_at is None:
        yield f"batchscore approve {row.run_id} --by NAME --store {store}"
    elif row.state != "finished":
        yield f"batchscore resume {row.run_id} --store {store}"
    if flags is not None and flags.n_released:
        yield f"batchscore queue --store {store} --queue {row.plan.spec.policy.queue}"
    yield f"batchscore status {row.run_id} --store {store}"
    if before is not None:
        yield f"batchscore report diff {before.run_id} {row.run_id} --store {store}"
