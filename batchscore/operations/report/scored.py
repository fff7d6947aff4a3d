"""Scores in a report: histograms, the proof that they are all there, what each bundle made, drift."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from batchscore.guarding import histograms_in
from batchscore.layout import Definitions
from batchscore.operations.report.gaps import Gaps
from batchscore.plan import Reference, Stage
from batchscore.ports import RunRow, StageRow, StoreReader
from batchscore.proving import prove_run
from batchscore.receipt import Receipt
from batchscore.report.drift import drift_against
from batchscore.report.histogram import Counts, psi
from batchscore.report.model import AsOfHistogram, BundleReport, Drift, ProofState
from batchscore.report.proof import Proof
from batchscore.report.work import StageWork


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


def proof_of(
    row: RunRow, reader: StoreReader, score: StageRow | None, gaps: Gaps, shadow: Reference | None = None
) -> tuple[ProofState, Proof | None]:
    """The proof, once every score partition is committed or set aside; before that nothing can close."""
    if score is None or score.n_committed + score.n_quarantined < score.n_partitions:
        return "not yet", None
    with gaps.around("proof"):
        proof = prove_run(row.plan, Definitions.of(row.plan), reader, row.run_id, shadow)
        return "closes" if proof.closes else "does not close", proof
    return "not readable", None


def bundles_of(
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
        state, _ = proof_of(row, reader, shadow_stage, gaps, shadow)
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


def drift_of(before: RunRow, reader: StoreReader, histograms: dict[datetime, Counts], gaps: Gaps) -> Drift | None:
    """Of the scores that flags come from, against those of the run before."""
    return drift_against(before.run_id, histograms, score_histograms(before, reader, gaps))
