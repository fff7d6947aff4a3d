"""Times that a table keeps as text, or that came as a driver's own values, as moments; integers stay for their declared unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from batchscore.errors import PartitionError
from batchscore.features.tables import TimeColumn


def with_moments(page: pa.Table, times: Iterable[TimeColumn]) -> pa.Table:
    """The page with its times that are text as moments; raises as `moments`."""
    for time in times:
        if pa.types.is_string(page.schema.field(time.column).type):
            place = page.schema.get_field_index(time.column)
            page = page.set_column(place, time.column, moments(page[time.column].to_pylist(), time))
    return page


def moments(values: Sequence[Any], time: TimeColumn) -> pa.Array:
    """ISO text and datetimes as timestamps in microseconds (naive ones by the declared zone, later); integers as int64.

    Raises:
        PartitionError: ``column_type``: a value is no time as declared, or some have a zone and some none.
    """
    if (
        all(value is None or (isinstance(value, int) and not isinstance(value, bool)) for value in values)
        and time.unit is not None
    ):
        return pa.array(values, pa.int64())
    try:
        found = [_moment(value) for value in values]
        naive = {moment.tzinfo is None for moment in found if moment is not None}
        if naive == {False}:
            found = [moment and moment.astimezone(UTC) for moment in found]
        if len(naive) < len({True, False}):  # a column with and without zones is refused below
            return pa.array(found, pa.timestamp("us", None if naive == {True} or time.zone else "UTC"))
    except (ValueError, TypeError, AttributeError, OverflowError, pa.ArrowException):
        pass  # said below: the library's message may quote the value
    raise PartitionError(
        "column_type",
        "holds a value that is no time as declared",
        where=time.column,
        remedy="store ISO text with a zone, or integers with a declared unit",
    )


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 (the declared zone is applied later)
    return value
