"""Coverage: how much of the window before an as-of a table can speak of. Where it speaks of too little, nothing is scored.

A table *begins*, as of a date, at the first grain of which an event was known by then. An account's window is the longest one
of the features over the table, or the account's life where that is shorter: of a new account everything is known, however
young the data. Its coverage is the share of that window which lies after the table began; without a row known by then it is 0.
A feature over all history has no window to cover.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.features.definitions import EPOCH
from batchscore.features.feature_set import FeatureSet
from batchscore.features.tables import CREATED_AT
from batchscore.keys import MOMENT

_GRAINS: Final = ["event_grain", "known_grain"]
_US: Final = timedelta(microseconds=1)


class _Group(NamedTuple):
    """A row group of a rollup: bounds of its grains, from the footer."""

    first_event: int
    first_known: int
    last_known: int
    path: Path
    number: int


def begins(rollups: Iterable[Path], as_ofs: Sequence[datetime], grain: timedelta) -> tuple[datetime | None, ...]:
    """When the table began, as of each of ``as_ofs``; None where nothing of it was known.

    Footers tell, but for row groups that hold both what was known by an as-of and what was not, and could begin earlier than
    all others: of those two columns are read.
    """
    ends = [(as_of - EPOCH) // grain for as_of in as_ofs]
    found: list[int | None] = [None] * len(ends)
    for group in sorted(_groups(rollups)):
        places = [
            place for place, end in enumerate(ends) if group.first_known < end and _is_earlier(group.first_event, found[place])
        ]
        if not places:
            continue
        if all(group.last_known < ends[place] for place in places):
            firsts = [group.first_event] * len(places)
        else:
            held = pq.ParquetFile(group.path).read_row_group(group.number, columns=_GRAINS)
            event, known = (held[name].to_numpy() for name in _GRAINS)
            firsts = [int(event[known < ends[place]].min()) for place in places]
        for place, first in zip(places, firsts, strict=True):
            found[place] = first if _is_earlier(first, found[place]) else found[place]
    return tuple(None if first is None else EPOCH + first * grain for first in found)


def _is_earlier(first: int, than: int | None) -> bool:
    return than is None or first < than


def _groups(rollups: Iterable[Path]) -> Iterable[_Group]:
    for path in rollups:
        footer = pq.read_metadata(path)
        # These columns come before any list, so leaves are numbered as fields are.
        event, known = (footer.schema.to_arrow_schema().get_field_index(name) for name in _GRAINS)
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            if not group.num_rows:
                continue
            events, knowns = group.column(event).statistics, group.column(known).statistics
            yield _Group(int(events.min), int(knowns.min), int(knowns.max), path, number)


def coverage_at(began: datetime | None, as_of: datetime, window: timedelta | None) -> float:
    """The coverage of an account that is older than ``window``: what a report says of a date."""
    if window is None:
        return 1.0
    return 0.0 if began is None else min(1.0, max(0.0, (as_of - began) / window))


def is_covered(
    accounts: pa.Table, began: Mapping[str, datetime | None], as_of: datetime, feature_set: FeatureSet
) -> npt.NDArray[np.bool_]:
    """Which accounts reach the feature set's floor in every table, bool (n,): all of them when it declares none.

    ``began``: table → when it began as of ``as_of``. An account without ``created_at`` counts as older than any window.
    """
    covered = np.ones(len(accounts), np.bool_)
    floor = feature_set.coverage
    if floor is None:
        return covered
    for table, first in began.items():
        window = feature_set.longest_window(table)
        if window is not None and coverage_at(first, as_of, window) < floor:
            life = _life_us(accounts, as_of, window)
            reached = 0 if first is None else (as_of - first) // _US
            covered &= np.minimum(life, reached) >= floor * life
    return covered


def _life_us(accounts: pa.Table, as_of: datetime, window: timedelta) -> npt.NDArray[np.int64]:
    """How long each account had been there at ``as_of``, at most ``window``, in microseconds."""
    longest = window // _US
    if CREATED_AT not in accounts.column_names:
        return np.full(len(accounts), longest, np.int64)
    created = accounts[CREATED_AT]
    life = pa.scalar(as_of, MOMENT).cast(pa.int64()).as_py() - created.cast(pa.int64()).fill_null(0).to_numpy()
    return np.where(created.is_valid().to_numpy(), np.clip(life, 0, longest), longest)
