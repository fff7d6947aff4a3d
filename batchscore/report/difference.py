"""What differs between two runs: pinned parts, stages, scores, flags. Pure; of flags it compares ids, and keeps counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.keys import ACCOUNT_ID, positions
from batchscore.plan import Plan
from batchscore.ports import FlagRow
from batchscore.report.histogram import Counts, psi
from batchscore.report.model import RunFacts, StageReport
from batchscore.values import Value

MAX_SHOWN: Final = 20


class PinnedPart(Value):
    """A pinned part that is not the same; empty where a run has none of that name."""

    part: str
    a: str
    b: str


class StagePair(Value):
    """One stage in both runs."""

    stage: str
    rows_a: int | None
    rows_b: int | None
    seconds_a: float | None
    seconds_b: float | None


class ScorePair(Value):
    """The scores of one as-of in both runs; 0 scores where a run has not that as-of."""

    as_of: datetime
    n_a: int
    n_b: int
    psi: float | None


class FlagPair(Value):
    """The flags of one as-of in both runs. ``n_moved``: flagged in both, at another rank."""

    as_of: datetime
    n_a: int
    n_b: int
    n_new: int
    n_dropped: int
    n_moved: int


class RunDifference(Value):
    """All of it, from run ``a`` to run ``b``.

    ``new_in_queue``: flags of B that `batchscore queue` shows now, of accounts that A flagged at no as-of; ``dropped_in_queue``
    the other way round. Best first, at most `MAX_SHOWN`.
    """

    a: RunFacts
    b: RunFacts
    pinned: tuple[PinnedPart, ...]
    stages: tuple[StagePair, ...]
    scores: tuple[ScorePair, ...]
    flags: tuple[FlagPair, ...]
    new_in_queue: tuple[FlagRow, ...]
    dropped_in_queue: tuple[FlagRow, ...]
    gaps: tuple[str, ...]


def pinned_parts(a: Plan, b: Plan) -> tuple[PinnedPart, ...]:
    """The parts in which two plans differ, by name."""
    return tuple(PinnedPart(part=part, a=a.pinned.get(part, ""), b=b.pinned.get(part, "")) for part in a.differences(b.pinned))


def stage_pairs(a: tuple[StageReport, ...], b: tuple[StageReport, ...]) -> tuple[StagePair, ...]:
    """Stages of both, in order."""
    theirs = {stage.stage: stage for stage in b}
    return tuple(
        StagePair(
            stage=mine.stage,
            rows_a=mine.rows_done,
            rows_b=theirs[mine.stage].rows_done,
            seconds_a=mine.seconds,
            seconds_b=theirs[mine.stage].seconds,
        )
        for mine in a
        if mine.stage in theirs
    )


def score_pairs(a: Mapping[datetime, Counts], b: Mapping[datetime, Counts]) -> tuple[ScorePair, ...]:
    """Every as-of of either run."""
    return tuple(
        ScorePair(
            as_of=as_of,
            n_a=sum(a.get(as_of, ())),
            n_b=sum(b.get(as_of, ())),
            psi=psi(b[as_of], a[as_of]) if as_of in a and as_of in b else None,
        )
        for as_of in sorted(a.keys() | b.keys())
    )


def flag_pairs(a: pa.Table, b: pa.Table) -> Iterator[FlagPair]:
    """Two decisions (account_id, as_of, rank, and what else) compared, as-of by as-of."""
    moments = pa.chunked_array([*a["as_of"].chunks, *b["as_of"].chunks], a.schema.field("as_of").type)
    for as_of in sorted(pc.unique(moments).to_pylist()):
        mine, theirs = (table.filter(pc.equal(table["as_of"], pa.scalar(as_of, moments.type))) for table in (a, b))
        found = positions(mine[ACCOUNT_ID].combine_chunks(), theirs[ACCOUNT_ID].combine_chunks())
        both = found >= 0
        ranks_a, ranks_b = mine["rank"].to_numpy()[both], theirs["rank"].to_numpy()[found[both]]
        n_both = int(both.sum())
        yield FlagPair(
            as_of=as_of,
            n_a=len(mine),
            n_b=len(theirs),
            n_new=len(theirs) - n_both,
            n_dropped=len(mine) - n_both,
            n_moved=int((ranks_a != ranks_b).sum()),
        )
