"""The order in which partitions of scores are handed out where a run may be late: accounts that wait longest for a score first.

Scores do not depend on it, as on no order. What is known of an account is known of its key range: the newest as-of at which an
earlier run of the spec scored all of it, wherever that run cut. So what the last night did not come to, or set aside, goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from batchscore.plan import KeyRange, Partition, Score, Stage
from batchscore.ports import RunRow, StoreReader

EARLIER: Final = 8  # runs of the spec that are looked at, the newest
NEVER: Final = datetime.min.replace(tzinfo=UTC)


def oldest_first(partitions: Sequence[Partition], row: RunRow, reader: StoreReader) -> tuple[Partition, ...]:
    """The partitions, those of accounts longest unscored first, then by number."""
    scored = sorted(_scored(row, reader), key=lambda one: one[0], reverse=True)

    def last_scored(partition: Partition) -> datetime:
        keys = partition.work.keys if isinstance(partition.work, Score) else KeyRange()
        return next((as_of for as_of, gaps in scored if not any(_meet(keys, gap) for gap in gaps)), NEVER)

    return tuple(sorted(partitions, key=lambda one: (last_scored(one), one.number)))


def _scored(row: RunRow, reader: StoreReader) -> Iterator[tuple[datetime, list[KeyRange]]]:
    """Each as-of that an earlier run scored, or began to, and the key ranges that it left out."""
    for other in reader.runs_of(row.name, limit=EARLIER + 1):
        if other.run_id == row.run_id:
            continue
        laid_out = reader.partitions(other.run_id, Stage.SCORE)
        aside = {one.number for one in reader.quarantined(other.run_id) if one.stage is Stage.SCORE}
        left = {one.number for one in reader.unfinished(other.run_id, Stage.SCORE)} | aside
        groups: dict[tuple[datetime, ...], list[Partition]] = {}
        for partition in laid_out:
            if isinstance(partition.work, Score):
                groups.setdefault(partition.work.as_ofs, []).append(partition)
        for as_ofs, members in groups.items():
            yield as_ofs[-1], _joined(members, left)


def _joined(members: Iterable[Partition], left: set[int]) -> list[KeyRange]:
    """The key ranges of those that are left, which follow each other, as few ranges."""
    found: list[KeyRange] = []
    follows = False
    for partition in members:
        if partition.number not in left:
            follows = False
            continue
        assert isinstance(partition.work, Score)
        keys = partition.work.keys
        if follows:
            found[-1] = KeyRange(low=found[-1].low, high=keys.high)
        else:
            found.append(keys)
        follows = True
    return found


def _meet(one: KeyRange, other: KeyRange) -> bool:
    """Whether an id can lie in both. Ids of one store are all numbers, or all text, which Python orders as its bytes."""
    return _begins_before(one.low, other.high) and _begins_before(other.low, one.high)


def _begins_before(low: int | str | None, high: int | str | None) -> bool:
    if low is None or high is None:
        return True
    return str(low) < str(high) if isinstance(low, str) or isinstance(high, str) else low < high
