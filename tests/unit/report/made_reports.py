"""Reports made by hand, for tests of what is folded into them and drawn from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from batchscore.digest import KeyDigest
from batchscore.report.histogram import N_BINS
from batchscore.report.model import AsOfHistogram, BundleReport, DateFlags, Flags, Report, RunFacts, StageReport
from batchscore.report.proof import AsOfProof, Proof

FIRST = datetime(2016, 1, 1, tzinfo=UTC)


def make_report(*, n_as_ofs: int = 2, **changes: Any) -> Report:
    """A finished run of as many days, a thousand accounts each, one flag a day; ``changes`` replace fields."""
    as_ofs = tuple(FIRST + timedelta(days=day) for day in range(n_as_ofs))
    report = Report(
        run=RunFacts(
            run_id="r-12345678-1",
            name="weekly",
            state="finished",
            why="",
            queue="abuse",
            release="latest",
            as_ofs=as_ofs,
            opened_at=FIRST,
            finished_at=FIRST + timedelta(seconds=90),
            released_at=FIRST + timedelta(seconds=90),
            generation=1,
            n_drivers=1,
        ),
        stages=(StageReport(stage="score", does="scores", rows_planned=10, rows_done=10, n_partitions=2, n_committed=2),),
        bundles=(made_bundle("champion"),),
        proof_state="closes",
        proof=Proof(accounts=keys(1000), as_ofs=tuple(map(make_line, as_ofs)), n_rows_rejected=0, n_orphans=0),
        threshold=0.5,
        budget=10,
        histograms=tuple(AsOfHistogram(as_of=as_of, counts=tuple(range(N_BINS))) for as_of in as_ofs),
        drift=None,
        flags=Flags(
            n_selected=n_as_ofs,
            n_to_release=1,
            n_explained=n_as_ofs,
            n_released=1,
            n_overtaken=0,
            dates=tuple(DateFlags(as_of=as_of, n_selected=1, n_to_release=0, reasons=()) for as_of in as_ofs),
            reasons=(),
            segments=None,
        ),
        rejects=(),
        alerts=(),
        slowest=(),
        failures=(),
        environment={"executor": "inline"},
        digests={"plan": "a" * 64},
        gaps=(),
        next=("batchscore queue",),
    )
    return report.model_copy(update=changes)


def make_line(as_of: datetime, *, closes: bool = True, n_quarantined: int = 0) -> AsOfProof:
    return AsOfProof(
        as_of=as_of,
        planned=keys(1000),
        outside=keys(0),
        scored=keys(1000 - n_quarantined),
        unscoreable=keys(0),
        rejected=keys(0),
        quarantined=keys(n_quarantined),
        lost=keys(0),
        closes=closes,
    )


def keys(n: int) -> str:
    return str(KeyDigest(n, n, n))


def made_bundle(name: str, *, shadow: bool = False, **changes: Any) -> BundleReport:
    """A bundle that scored 10 rows in 2 milliseconds."""
    bundle = BundleReport(
        name=name,
        digest="b" * 64,
        shadow=shadow,
        n_scores=10,
        n_rejected=0,
        n_quarantined=0,
        n_made=10,
        own_s=0.002,
        proof_state="closes",
    )
    return bundle.model_copy(update=changes)
