"""Looks into footers for events of late: an input that stopped long ago is told before a run begins. Decodes no page.

Footers may hold no statistics, or a row group may hold events of all times: what cannot be told so is told as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.errors import BatchscoreError
from batchscore.features.tables import TimeColumn
from batchscore.plan import InputFile
from batchscore.sources.utc_times import to_utc


def last_event(files: Sequence[InputFile], time: TimeColumn, *, since: datetime, until: datetime) -> datetime | None:
    """The last event before ``since``, where footers say that none lies from ``since`` to ``until``; else None.

    Looks from the last file back, and no farther than the first row group that may hold an event of that time.
    """
    last: datetime | None = None
    for file in reversed(files):
        footer = pq.read_metadata(Path(file.root) / file.path)
        place = next((n for n in range(footer.num_columns) if footer.schema.column(n).path == time.column), None)
        if place is None:
            return None
        kind = footer.schema.to_arrow_schema().field(time.column).type
        for number in range(footer.num_row_groups):
            if not footer.row_group(number).num_rows:
                continue
            ends = _ends(footer.row_group(number).column(place).statistics, kind, time)
            if ends is None or (ends[0] < until and ends[1] >= since):
                return None
            if ends[1] < since:
                last = ends[1] if last is None else max(last, ends[1])
    return last


def _ends(statistics: pq.Statistics | None, kind: pa.DataType, time: TimeColumn) -> tuple[datetime, datetime] | None:
    """The first and last moment of a row group; None where its footer does not tell."""
    if statistics is None or not statistics.has_min_max:
        return None
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    try:
        moments, _ = to_utc(pa.array([statistics.min, statistics.max], kind), time, time.column)
        first, last = moments.to_pylist()
    except (BatchscoreError, ValueError, TypeError, OverflowError, pa.ArrowException):
        return None
    return None if first is None or last is None else (first, last)
