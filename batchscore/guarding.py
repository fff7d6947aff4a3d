"""Looks at the flags of a run before they are released: gathers what the guard compares, of it and earlier ones. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.decide.guard import Missing, Profile, ScoreDrift, judge, not_seen, profile_of
from batchscore.decide.tiers import lowest_threshold
from batchscore.decide.top import from_metadata
from batchscore.errors import BatchscoreError
from batchscore.files import verified
from batchscore.flag import REASONS
from batchscore.hold import Finding
from batchscore.keys import ACCOUNT_ID
from batchscore.layout import Definitions, decided_rows
from batchscore.models.bundle import manifest_of
from batchscore.plan import Stage
from batchscore.ports import RunRow, StoreReader
from batchscore.receipt import Receipt
from batchscore.report.histogram import EDGES, Counts, added, from_footer, psi

EARLIER: Final = 5  # runs of the spec that are compared with
LOOKED_THROUGH: Final = 50  # released runs of the spec, the newest, among which they are looked for
_FOOTER_THREADS: Final = 8
_NULLS: Final = "feature_nulls "
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Guarded:
    """What of a run's flags a person must see and has not approved; ``n_earlier``: how many runs they were compared with."""

    findings: tuple[Finding, ...]
    n_earlier: int


def judge_release(row: RunRow, definitions: Definitions, reader: StoreReader) -> Guarded | None:
    """What the guard finds of the run's flags; None where it releases nothing, or declares no guard."""
    policy = row.plan.spec.policy
    if policy.guard is None or row.plan.spec.release == "none":
        return None
    earlier = list(_released_before(row, reader))
    profiles = [profile for other in earlier if (profile := _profile(other, reader)) is not None]
    mine = _profile(row, reader)
    assert mine is not None, "its reasons were committed just now"
    found = judge(
        mine,
        profiles,
        policy.guard,
        budget=policy.budget,
        drifts=tuple(_drifts(row, earlier[:1], definitions, reader)) if policy.guard.psi is not None else (),
        missing=tuple(_missing(row, reader)) if policy.guard.missing is not None else (),
    )
    approved = [hold for hold in reader.holds(row.run_id) if hold.subject == "release" and hold.approved_at is not None]
    left = not_seen(found, [finding for hold in approved for finding in hold.findings])
    return Guarded(findings=left, n_earlier=len(profiles))


def compares_nothing(row: RunRow, reader: StoreReader) -> bool:
    """Whether a run has a guard that had, or has by now, no earlier run to compare its flags with."""
    if row.plan.spec.policy.guard is None or row.plan.spec.release == "none" or row.decision is None:
        return False
    earlier = (other for other in _released_before(row, reader) if _came_before(other, row))
    return all(_profile(other, reader) is None for other in earlier)


def _came_before(other: RunRow, row: RunRow) -> bool:
    return row.released_at is None or (other.released_at is not None and other.released_at < row.released_at)


def histograms_in(paths: Iterable[Path]) -> tuple[dict[datetime, Counts], int]:
    """As-of → counts of all scores in those files, by their footers, and how many of the files are gone or cannot be read."""
    found: dict[datetime, Counts] = {}
    missing = 0

    def read(path: Path) -> dict[datetime, Counts] | None:
        try:
            return from_footer(pq.read_metadata(path).metadata)
        except (OSError, ValueError, pa.ArrowException):
            return None

    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        for held in pool.map(read, paths):
            missing += held is None
            for as_of, counts in (held or {}).items():
                found[as_of] = added([found[as_of], counts]) if as_of in found else counts
    return found, missing


def _released_before(row: RunRow, reader: StoreReader) -> Iterator[RunRow]:
    """The newest runs of the spec that released and were not undone, without those that answered this run's question."""
    n_found = 0
    for other in reader.released_runs(row.name, limit=LOOKED_THROUGH):
        is_other = other.plan.spec.as_ofs()[-1] != row.plan.spec.as_ofs()[-1] and other.plan.spec.release != "none"
        if is_other and n_found < EARLIER:
            n_found += 1
            yield other


def _profile(row: RunRow, reader: StoreReader) -> Profile | None:
    """Of the flags that a run releases; None where its files are gone."""
    try:
        if row.decision is None:
            return None
        path = verified(row.decision.path, row.decision.sha256)
        as_of = row.plan.spec.as_ofs()[-1]
        flags = decided_rows(row.decision)
        flags = flags.filter(pc.equal(flags["as_of"], pa.scalar(as_of, flags.schema.field("as_of").type)))
        told = from_metadata(pq.read_schema(path).metadata).get(as_of)
        first = _first_reasons(reader.receipts(row.run_id, Stage.REASONS), Path(row.plan.spec.store), as_of)
    except (BatchscoreError, OSError, pa.ArrowException):
        return None
    columns = [ACCOUNT_ID, "segment", "domain", "stratum"]
    return profile_of(flags.select(columns).to_pylist(), first, None if told is None else told.n_above)


def _first_reasons(receipts: Iterable[Receipt], store: Path, as_of: datetime) -> dict[Any, str]:
    first: dict[Any, str] = {}
    for receipt in receipts:
        for output in receipt.outputs:
            path = verified(str(store / output.path), output.sha256)
            table = pq.read_table(path, columns=[ACCOUNT_ID, "reasons"], filters=[("as_of", "=", as_of)])
            for account, text in zip(table[ACCOUNT_ID].to_pylist(), table["reasons"].to_pylist(), strict=True):
                codes = [reason.code for reason in REASONS.validate_json(text) if reason.contribution > 0]
                if codes:
                    first[account] = codes[0]
    return first


def _drifts(row: RunRow, before: Iterable[RunRow], definitions: Definitions, reader: StoreReader) -> Iterator[ScoreDrift]:
    """The scores of the released as-of against those of the run before, and against the reference its bundle was packed with."""
    as_of = row.plan.spec.as_ofs()[-1]
    mine = _histogram(row, reader)
    for other in before:
        days = max(1, abs(as_of - other.plan.spec.as_ofs()[-1]) // _DAY)
        yield from _drift(mine, _histogram(other, reader), other.run_id, row, days)
    reference = manifest_of(definitions.bundle).scores
    if reference is not None:
        yield from _drift(mine, reference, "the bundle's reference", row, 1)


def _drift(mine: Counts, theirs: Counts, against: str, row: RunRow, days: int) -> Iterator[ScoreDrift]:
    value = psi(mine, theirs)
    if value is not None:
        line = lowest_threshold(row.plan.spec.policy)
        at = sum(edge <= line for edge in EDGES)  # bins from here on lie above the line, but for a part of the first
        more = sum(mine[at:]) - sum(theirs[at:]) * sum(mine) / sum(theirs)
        yield ScoreDrift(against=against, psi=value, more_a_day=round(more / days))


def _histogram(row: RunRow, reader: StoreReader) -> Counts:
    folder = Path(row.plan.spec.store)
    receipts = reader.receipts(row.run_id, Stage.SCORE)
    paths = [folder / output.path for receipt in receipts for output in receipt.outputs if output.role == "scores"]
    return histograms_in(paths)[0].get(row.plan.spec.as_ofs()[-1], added([]))


def _missing(row: RunRow, reader: StoreReader) -> Iterator[Missing]:
    """Features of whose partitions some told that they are missing more often than the bundle expects."""
    counted: Counter[str] = Counter()
    n_partitions = 0
    for receipt in reader.receipts(row.run_id, Stage.SCORE):
        n_partitions += 1
        counted.update({alert.removeprefix(_NULLS) for alert in receipt.alerts if alert.startswith(_NULLS)})
    for feature, n in sorted(counted.items()):
        yield Missing(feature=feature, n=n, n_partitions=n_partitions)
