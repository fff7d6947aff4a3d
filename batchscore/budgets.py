"""Error budgets: compares what was set aside of the released as-of with what the spec allows, in all and in each segment.

The proof has counts by class. By segment they are counted here, and only where something was set aside of a class that is
limited so: the accounts' times and segments are read once more, a key range at a time, never all at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.digest import KeyDigest
from batchscore.features.accounts import Accounts
from batchscore.features.coverage import is_covered
from batchscore.features.frame import population
from batchscore.files import verified
from batchscore.hold import Finding
from batchscore.key_index import open_index
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.layout import Definitions
from batchscore.plan import Plan, Score, Stage
from batchscore.ports import StoreReader
from batchscore.report.limits import CLASSES, PLANNED, SegmentCounts, beyond, beyond_in_segments, not_approved
from batchscore.report.proof import Proof
from batchscore.sources.segment import MAX_SEGMENT_CHARS, SEGMENT

MOST_SEGMENTS: Final = 10_000  # that are told apart; a column with more names accounts, and the others are counted together
OTHERS: Final = "…"
NONE: Final = "none"
Mask = npt.NDArray[np.bool_]


def judge_errors(plan: Plan, definitions: Definitions, reader: StoreReader, run_id: str, proof: Proof) -> tuple[Finding, ...]:
    """What is beyond the spec's limits and no person has approved of this run.

    Raises:
        PartitionError: a snapshot or a file of rejects is gone or damaged.
    """
    limits = plan.spec.limits
    if limits is None:
        return ()
    of_as_of = proof.as_ofs[-1]
    found = beyond(of_as_of, limits)
    each = limits.by_segment
    if each is not None and any(
        getattr(each, name) is not None and KeyDigest.parse(getattr(of_as_of, name)).n for name in CLASSES
    ):
        found += beyond_in_segments(count_by_segment(definitions, reader, run_id, of_as_of.as_of), each, of_as_of.as_of.date())
    holds = reader.holds(run_id)
    approved = [finding for hold in holds if hold.subject == "errors" and hold.approved_at for finding in hold.findings]
    return not_approved(found, approved)


def count_by_segment(definitions: Definitions, reader: StoreReader, run_id: str, as_of: datetime) -> SegmentCounts:
    """Segment → how many of its accounts were planned at ``as_of``, and how many of them were set aside, by class."""
    rejects = {
        receipt.number: (output.path, output.sha256)
        for receipt in reader.receipts(run_id, Stage.SCORE)
        for output in receipt.outputs
        if output.role == "rejects"
    }
    aside = {row.number for row in reader.quarantined(run_id) if row.stage is Stage.SCORE}
    counts: dict[str, Counter[str]] = {}
    for partition in reader.partitions(run_id, Stage.SCORE):
        work = partition.work
        if not isinstance(work, Score) or as_of not in work.as_ofs:
            continue
        accounts, segments, inside, covered = _range(definitions, work, as_of)
        rejected = np.zeros(len(inside), np.bool_)
        if partition.number in rejects:
            ids = _rejected(definitions.store, *rejects[partition.number], as_of)
            rejected = pc.is_in(accounts, value_set=ids.combine_chunks()).to_numpy(zero_copy_only=False)
        all_of_it = partition.number in aside
        parts: dict[str, Mask] = {
            PLANNED: inside,
            "quarantined": inside if all_of_it else np.zeros_like(inside),
            "unscoreable": inside & ~covered & (not all_of_it),
            "rejected": inside & rejected & (not all_of_it),
        }
        for name, mask in parts.items():
            for segment, n in _counted(segments, mask):
                known = segment if segment in counts or len(counts) < MOST_SEGMENTS else OTHERS
                counts.setdefault(known, Counter())[name] += n
    return counts


def _range(definitions: Definitions, work: Score, as_of: datetime) -> tuple[pa.Array, pa.ChunkedArray, Mask, Mask]:
    """Of a key range: the ids, their segments, who existed at ``as_of``, and of whom enough is known."""
    feature_set = definitions.feature_set
    declared = feature_set.accounts
    index = open_index(str(definitions.store), feature_set.account_id, work.snapshots)
    rows = index.read(work.keys, columns=[ACCOUNT_ID, *declared.times, SEGMENT])
    accounts = Accounts.of(rows, declared)
    held = accounts.at(as_of)
    place = work.as_ofs.index(as_of)
    began = {table: moments[place] for table, moments in work.began.items()}
    return accounts.ids, held[SEGMENT], population(held, as_of), is_covered(held, began, as_of, feature_set)


def _rejected(store: Path, path: str, sha256: str, as_of: datetime) -> pa.ChunkedArray:
    table = pq.read_table(verified(str(store / path), sha256), columns=["as_of", ACCOUNT_ID])
    return table.filter(pc.equal(table["as_of"], pa.scalar(as_of, MOMENT)))[ACCOUNT_ID]


def _counted(segments: pa.ChunkedArray, mask: Mask) -> Iterator[tuple[str, int]]:
    if mask.any():
        names = pc.utf8_slice_codeunits(segments.filter(pa.array(mask)).cast(pa.string()), 0, MAX_SEGMENT_CHARS)
        for one in pc.value_counts(pc.fill_null(names, NONE)).to_pylist():
            yield one["values"], one["counts"]
