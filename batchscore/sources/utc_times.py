"""Times of a column in UTC microseconds, exactly: in any unit, with a zone or by the declared zone's rules."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import PartitionError
from batchscore.features.tables import TimeColumn
from batchscore.keys import MOMENT
from batchscore.sources.column_types import refuse_time_type

FIRST_US: Final = -62_135_596_800_000_000  # 0001-01-01
LAST_US: Final = 253_402_300_799_999_999  # the last microsecond of 9999
_US_IN: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_NS_IN_US: Final = 1_000
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_ARROW_KNOWS_S: Final = 2_145_916_800  # 2038-01-01: local times from here on are read by Python's rules

Mask = npt.NDArray[np.bool_]


def to_utc(values: pa.Array, time: TimeColumn, where: str) -> tuple[pa.Array, Mask]:
    """Times as timestamp[us, UTC], and which of them lie outside years 1 to 9999 (those are null in the result).

    Nanoseconds are rounded down to microseconds. A naive time needs a declared zone; a local time that does not exist or
    exists twice there stops the partition: guessing would move events over a day's edge.

    Raises:
        Refused: ``column_type`` or ``naive_timestamp``: the column cannot be read as declared.
        PartitionError: ``naive_timestamp``: a local time is ambiguous or does not exist.
    """
    kind = values.type
    refuse_time_type(kind, time, where=where)
    if pa.types.is_null(kind):
        return values.cast(MOMENT), np.zeros(len(values), np.bool_)
    if pa.types.is_integer(kind):
        return _scaled(values, str(time.unit))
    if pa.types.is_date(kind):
        values = values.cast(pa.timestamp("ms") if pa.types.is_date64(kind) else pa.timestamp("s"))
        kind = values.type
    numbers = values.cast(pa.int64())
    if kind.tz is None:
        try:
            numbers = _from_local(values, str(time.zone))
        except pa.ArrowInvalid:
            raise PartitionError(
                "naive_timestamp",
                f"a local time does not exist, or exists twice, in {time.zone}",
                where=where,
                remedy="write the times in UTC where they are made",
            ) from None
    return _scaled(numbers, kind.unit)


def _from_local(values: pa.Array, zone: str) -> pa.Array:
    """Naive local times as integers in UTC, in their unit. Arrow knows no summer time after 2037, Python does.

    Raises:
        pa.ArrowInvalid: a local time does not exist or exists twice.
    """
    local = values.cast(pa.int64())
    rules = _rules(zone)
    late = pc.fill_null(pc.greater_equal(local, _ARROW_KNOWS_S * _PER_SECOND[values.type.unit]), fill_value=False)
    if rules is None or not pc.any(late).as_py():
        return pc.assume_timezone(values, zone, ambiguous="raise", nonexistent="raise").cast(pa.int64())
    early = pc.if_else(late, pa.scalar(None, values.type), values)
    known = pc.assume_timezone(early, zone, ambiguous="raise", nonexistent="raise").cast(pa.int64())
    encoded = local.filter(late).dictionary_encode()  # such times are few, or one placeholder many times over
    exact = [_late_in_utc(number, _PER_SECOND[values.type.unit], rules) for number in encoded.dictionary.to_pylist()]
    return pc.replace_with_mask(known, late, pa.array(exact, pa.int64()).take(encoded.indices))


def _late_in_utc(number: int, per_second: int, rules: ZoneInfo) -> int:
    """One local time in UTC; what is beyond year 9999 stays, and is rejected later."""
    try:
        local = datetime(1970, 1, 1, tzinfo=rules) + timedelta(seconds=number // per_second)
    except OverflowError:
        return number
    offset, other = local.utcoffset(), local.replace(fold=1).utcoffset()
    if offset is None or offset != other:
        raise pa.ArrowInvalid("a local time does not exist, or exists twice")
    return number - int(offset.total_seconds()) * per_second


@lru_cache
def _rules(zone: str) -> ZoneInfo | None:
    """The zone's rules; None for an offset, such as +05:30, which has none."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _scaled(values: pa.Array, unit: str) -> tuple[pa.Array, Mask]:
    """Integers since 1970 in ``unit`` as moments, and a mask of those out of range. Exact: nothing passes through a float."""
    present = values.is_valid().to_numpy(zero_copy_only=False)
    if values.type == pa.uint64():
        if unit == "ns":
            values, unit = pc.divide(values, pa.scalar(_NS_IN_US, pa.uint64())), "us"
        values = pc.min_element_wise(values, pa.scalar(2**63 - 1, pa.uint64()), skip_nulls=False)  # beyond year 9999 in any unit
    numbers = values.cast(pa.int64()).fill_null(0).to_numpy()
    if unit == "ns":
        us = np.floor_divide(numbers, _NS_IN_US)
        beyond = np.zeros(len(us), np.bool_)
    else:
        factor = _US_IN[unit]
        beyond = (numbers > LAST_US // factor) | (numbers < FIRST_US // factor)
        us = np.where(beyond, 0, numbers) * factor
    beyond = (beyond | (us > LAST_US) | (us < FIRST_US)) & present
    return pa.array(us, mask=~present | beyond).cast(MOMENT), beyond
