"""Lays out reasons and reconsider: the key ranges of scores that hold accounts to be explained, a few hundred at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.decide.table import EVIDENCE, FLAG, RESERVE
from batchscore.files import verified
from batchscore.keys import ACCOUNT_ID
from batchscore.layout.left import decided_rows, flags_of, score_work
from batchscore.plan import KeyRange, Partition, Reasons, Reconsider, Reference, Score

FLAGS_PER_PARTITION: Final = 500  # of reasons: each flag may cost a row group of its own, read and let go again
RANGES_PER_PARTITION: Final = 16  # of reasons: few flags far apart are read by all workers, and not by one while the others wait


def lay_out_reasons(score: Sequence[Partition], decision: Reference) -> tuple[Partition, ...]:
    """Key ranges with flags of the decision, its reserve or evidence: each is explained while the rollups are there.

    Up to `RANGES_PER_PARTITION` score partitions and `FLAGS_PER_PARTITION` flags each.
    """
    decided = decided_rows(decision, FLAG, RESERVE, EVIDENCE).select([ACCOUNT_ID, "as_of"])
    partitions: list[Partition] = []
    for members, n_flags in _together(score, decided):
        work = _over(members)
        reads: dict[str, object] = {"score": [member.address for member in members], "decision": decision.sha256}
        partitions.append(
            Partition.of(Reasons(score=work, decision=decision), number=len(partitions), n_rows=n_flags, reads=reads)
        )
    return tuple(partitions)


def lay_out_reconsider(score: Sequence[Partition], candidates: Reference, names: tuple[str, ...]) -> tuple[Partition, ...]:
    """Key ranges with accounts to be looked at again, as `lay_out_reasons` cuts them."""
    asked = pq.read_table(verified(candidates.path, candidates.sha256), columns=[ACCOUNT_ID, "as_of"])
    partitions: list[Partition] = []
    for members, n_rows in _together(score, asked):
        reads: dict[str, object] = {
            "score": [member.address for member in members], "candidates": candidates.sha256, "names": list(names)
        }  # fmt: skip
        work = Reconsider(score=_over(members), candidates=candidates, names=names)
        partitions.append(Partition.of(work, number=len(partitions), n_rows=n_rows, reads=reads))
    return tuple(partitions)


def _over(members: Sequence[Partition]) -> Score:
    """One work over the key ranges of some score partitions that follow each other."""
    first, last = score_work(members[0]), score_work(members[-1])
    return first.model_copy(update={"keys": KeyRange(low=first.keys.low, high=last.keys.high)})


def _together(score: Sequence[Partition], decided: pa.Table) -> Iterator[tuple[list[Partition], int]]:
    """Score partitions that hold flags, in groups of the same as-ofs, and how many flags each group holds."""
    group: list[Partition] = []
    n_flags = 0
    for partition in score:
        n_here = len(flags_of(decided, score_work(partition)))
        if not n_here:
            continue
        full = len(group) == RANGES_PER_PARTITION or n_flags + n_here > FLAGS_PER_PARTITION
        if group and (full or score_work(group[-1]).as_ofs != score_work(partition).as_ofs):
            yield group, n_flags
            group, n_flags = [], 0
        group, n_flags = [*group, partition], n_flags + n_here
    if group:
        yield group, n_flags
