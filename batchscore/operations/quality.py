"""Quality: what people decided on the flags of runs, gathered for the estimates of `report.quality`. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.sample import RESERVE as RESERVE_STRATUM
from batchscore.decide.table import FLAG, RESERVE
from batchscore.decide.top import from_metadata
from batchscore.errors import Refused
from batchscore.files import verified
from batchscore.flag import DECIDED, FlagState
from batchscore.keys import ACCOUNT_ID
from batchscore.layout import decided_rows
from batchscore.ports import RunRow, StoreReader
from batchscore.report.quality import (
    TOP,
    CalibrationBin,
    Key,
    Known,
    Quality,
    Seen,
    ThresholdSeen,
    best_threshold,
    calibration_of,
    quality_of,
    thresholds_of,
)
from batchscore.values import Value

MOST_RUNS: Final = 60  # of a spec, the newest
MOST_SEGMENTS: Final = 12
MOST_UNSEEN: Final = 3  # strata that are named


class QualityShown(Value):
    """What `batchscore quality` prints: of all flags, of each model and segment, and the calibration of scores."""

    runs: tuple[str, ...]
    every: Quality
    models: tuple[Quality, ...]
    segments: tuple[Quality, ...]
    calibration: tuple[CalibrationBin, ...]
    notes: tuple[str, ...]


class ThresholdShown(Value):
    """What `batchscore threshold` prints. ``chosen``: the best line that does what was asked; None: none does."""

    runs: tuple[str, ...]
    precision: float | None
    reviews: float | None
    chosen: ThresholdSeen | None
    lines: tuple[ThresholdSeen, ...]
    notes: tuple[str, ...]


def quality_shown(reader: StoreReader, of: str) -> QualityShown:
    """Of the run with that id, or of the newest released runs of the spec of that name.

    Raises:
        Refused: ``run_unknown``; ``nothing_decided``: nobody has decided on any of their flags.
    """
    rows, known = _known(reader, of)
    models = sorted({model for _, model, _ in known.sizes})
    counted = Counter(one.segment for one in known.seen if one.segment is not None)
    segments = [name for name, _ in sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_SEGMENTS]]
    return QualityShown(
        runs=tuple(row.run_id for row in rows),
        every=quality_of(known),
        models=tuple(quality_of(known, model, model=model) for model in models),
        segments=tuple(quality_of(known, segment, segment=segment) for segment in segments),
        calibration=calibration_of(known),
        notes=tuple(_notes(known)),
    )


def threshold_shown(reader: StoreReader, of: str, *, precision: float | None, reviews: float | None) -> ThresholdShown:
    """As `quality_shown`, of other thresholds than the one that selected."""
    rows, known = _known(reader, of)
    lines = thresholds_of(known)
    return ThresholdShown(
        runs=tuple(row.run_id for row in rows),
        precision=precision,
        reviews=reviews,
        chosen=best_threshold(lines, precision=precision, reviews=reviews),
        lines=lines,
        notes=tuple(_notes(known)),
    )


def _known(reader: StoreReader, of: str) -> tuple[list[RunRow], Known]:
    if of.startswith("r-"):
        rows = [row for row in (reader.run(of),) if row.released_at is not None and row.undo_begun_at is None]
    else:
        rows = list(reader.released_runs(of, limit=MOST_RUNS))
    seen: list[Seen] = []
    sizes: Counter[Key] = Counter()
    blank: Counter[Key] = Counter()
    told_of: list[RunRow] = []
    for row in rows:
        model = row.plan.bundle_names()[row.plan.bundles[0].sha256]
        found, strata, out_of_question = _of_run(row, reader, model)
        if not any(one.state in {"confirmed", "cleared"} for one in found):
            continue  # nobody was at its flags yet: it tells nothing, and is not a run without abuse
        told_of.append(row)
        seen += found
        for held, counts in ((sizes, strata), (blank, out_of_question)):
            held.update({("" if name == TOP else row.run_id, model, name): n for name, n in counts.items()})
    if not seen:
        raise Refused(
            "nothing_decided",
            f"nobody has confirmed or cleared a flag of {of!r} that was released and stands",
            where=of,
            remedy="decide some: batchscore queue list, then batchscore queue decide",
        )
    return told_of, Known(seen=seen, sizes=sizes, blank=blank, n_as_ofs=len(told_of))


def _of_run(row: RunRow, reader: StoreReader, model: str) -> tuple[list[Seen], Counter[str], Counter[str]]:
    """The flags of a run, how many accounts each stratum holds, and how many of those drawn were withheld."""
    assert row.decision is not None
    as_of = row.plan.spec.as_ofs()[-1]
    held = {flag.flag.account_id: FlagState(flag.state) for flag in reader.flags(row.run_id)}
    decided = decided_rows(row.decision, FLAG, RESERVE)
    decided = decided.filter(pc.equal(decided["as_of"], pa.scalar(as_of, decided.schema.field("as_of").type)))
    told = from_metadata(pq.read_schema(verified(row.decision.path, row.decision.sha256)).metadata).get(as_of)
    records = decided.select([ACCOUNT_ID, "score", "standing", "stratum", "segment"]).to_pylist()
    let_go = [record for record in records if record["standing"] == RESERVE and record[ACCOUNT_ID] in held]
    reached = max(map(_order, let_go), default=None)  # of the reserve all up to here went to people
    seen: list[Seen] = []
    sizes = Counter({stratum.name: stratum.n for stratum in told.strata} if told else {})
    blank = Counter({stratum.name: stratum.n_drawn for stratum in told.strata} if told else {})
    for record in records:
        stratum = record["stratum"] or (TOP if record["standing"] == FLAG else RESERVE_STRATUM)
        blank.subtract([stratum] if record["stratum"] else [])
        if stratum == RESERVE_STRATUM and reached is not None and _order(record) <= reached:
            sizes.subtract([stratum])
            stratum = TOP
        sizes.update([stratum] if stratum == TOP else [])
        if record["standing"] == FLAG or stratum == TOP:
            state = held.get(record[ACCOUNT_ID])
            said = state.value if state in DECIDED else "undecided"
            seen.append(
                Seen(
                    score=record["score"],
                    state=said,
                    stratum=stratum,
                    segment=record["segment"],
                    model=model,
                    run=row.run_id,
                )
            )
    return seen, +sizes, blank  # `+`: none of a reserve that has all gone, or that no sample made a stratum of


def _order(record: dict[str, Any]) -> tuple[float, Any]:
    """The order of decide: the score, high first, then the account id."""
    account = record[ACCOUNT_ID]
    return -record["score"], account.encode() if isinstance(account, str) else account


def _notes(known: Known) -> Iterator[str]:
    """What a reader of the figures must know."""
    unseen = known.unseen()
    for run, _, stratum in unseen[:MOST_UNSEEN]:
        yield f"recall is unknown: nobody has decided on any account drawn of the stratum {stratum} of {run}"
    if len(unseen) > MOST_UNSEEN:
        yield f"and of {len(unseen) - MOST_UNSEEN:,} more strata"
    if all(stratum == TOP for _, _, stratum in known.sizes):
        yield "nothing was drawn below the line, so nobody knows what was missed: declare sample: 0.05 in the policy"
    n_open = sum(one.state == "undecided" for one in known.seen)
    if n_open:
        yield f"{n_open:,} of {len(known.seen):,} flags are undecided; those decided stand for them, whichever were taken first"
