"""Counts of events by the day they are of and the grain they were known at: what the input gate judges days by.

Each attempt at a rollup leaves its own as a small file. Counts add, so they are exact and the same however files are cut, and
a judgement reads a few rows for each day in the place of all rollups.

Columns: ``segment`` (string, null where none is declared or a row has none), ``event_day`` (int32, days since 1970 in UTC),
``known_grain`` (int32, grains since 1970), ``n`` (int64).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import Refused
from batchscore.features.definitions import DAY

DAYS_SCHEMA: Final = pa.schema(
    [("segment", pa.string()), ("event_day", pa.int32()), ("known_grain", pa.int32()), ("n", pa.int64())]
)
MAX_SEGMENTS: Final = 100  # of a table: a column with more names things nobody judges one by one, or persons
MAX_SEGMENT_CHARS: Final = 80
_KEYS: Final = ["segment", "event_day", "known_grain"]


def count_rollup(rollup: pa.Table, grain: timedelta) -> pa.Table:
    """Day counts of rollup rows, without segments."""
    days = np.floor_divide(rollup["event_grain"].to_numpy(), DAY // grain)
    counted = pa.table({"event_day": pa.array(days), "known_grain": rollup["known_grain"], "n": rollup["n"]})
    grouped = counted.group_by(_KEYS[1:], use_threads=False).aggregate([("n", "sum")])  # by numbers: far faster than with text
    nothing = pa.nulls(len(grouped), pa.string())
    return _summed(_table(nothing, grouped["event_day"], grouped["known_grain"], grouped["n_sum"]))


def count_events(events: pa.Table, grain: timedelta, segment: str) -> pa.Table:
    """Day counts of canonical events by the text column ``segment``."""
    day_us, grain_us = (int(step.total_seconds()) * 1_000_000 for step in (DAY, grain))
    event, known = (events[name].cast(pa.int64()).to_numpy() for name in ("event_at", "known_at"))
    days, grains = np.floor_divide(event, day_us), np.floor_divide(known, grain_us)
    names = pc.utf8_slice_codeunits(events[segment], 0, MAX_SEGMENT_CHARS)
    return _summed(_table(names, pa.array(days), pa.array(grains), pa.array(np.ones(len(events), np.int64))))


def added(counts: Iterable[pa.Table], *, where: str) -> pa.Table:
    """Day counts brought together, sorted by their keys.

    Raises:
        Refused: ``spec_invalid``: there are more than `MAX_SEGMENTS` segments.
    """
    held = _summed(pa.concat_tables([DAYS_SCHEMA.empty_table(), *counts]))
    if pc.count_distinct(held["segment"]).as_py() > MAX_SEGMENTS:
        raise Refused(
            "spec_invalid",
            f"the column that the gate counts by has more than {MAX_SEGMENTS} values",
            where=where,
            remedy="let gate … by name a column of few values, such as a server or a direction; or leave it out",
        )
    return held


def _summed(counts: pa.Table) -> pa.Table:
    grouped = counts.group_by(_KEYS, use_threads=False).aggregate([("n", "sum")]).rename_columns([*_KEYS, "n"])
    return grouped.sort_by([(name, "ascending") for name in _KEYS]).select(DAYS_SCHEMA.names).cast(DAYS_SCHEMA)


def _table(segment: object, days: object, grains: object, n: object) -> pa.Table:
    return pa.table([segment, days, grains, n], names=DAYS_SCHEMA.names).cast(DAYS_SCHEMA)
