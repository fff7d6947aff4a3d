"""Raw rows become canonical ones: exact ids, times in UTC microseconds, rows that cannot be used set aside under a code.

Accounts: ``account_id``, ``created_at``, ``deleted_at``, ``valid_from`` and ``valid_to`` where declared, then the columns that
features read. Events:
``account_id``, ``event_at``, ``known_at``, then the measured columns. What is wrong with a *column* stops the partition
or the run; what is wrong with a *row* goes to the rejects, which hold the file, the row's number and a code, no values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import PartitionError, Refused
from batchscore.features.accounts import empty_intervals
from batchscore.features.feature_set import VALID_FROM, AccountsTable, EventsTable, TimeColumn
from batchscore.keys import ACCOUNT_ID, ID_TYPES, MOMENT, IdKind

REJECTS: Final = pa.schema([("file", pa.string()), ("row", pa.int64()), ("code", pa.string())])
FIRST_US: Final = -62_135_596_800_000_000  # 0001-01-01
LAST_US: Final = 253_402_300_799_999_999  # the last microsecond of 9999
_US_IN: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_NS_IN_US: Final = 1_000
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_ARROW_KNOWS_S: Final = 2_145_916_800  # 2038-01-01: local times from here on are read by Python's rules

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Canonical rows, and the rejects of the same batch."""

    table: pa.Table
    rejects: pa.Table


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch of raw rows stands: the file (or table), and the number of its first row."""

    source: str
    first_row: int = 0


def canonical_accounts(raw: pa.Table, accounts: AccountsTable, columns: Iterable[str], kind: IdKind, place: Place) -> Rows:
    """Accounts of one batch.

    Raises:
        Refused: ``id_physical_type`` or ``column_type``.
        PartitionError: ``invalid_utf8``, ``naive_timestamp``.
    """
    gathered = _Batch(raw, place)
    made = {ACCOUNT_ID: gathered.ids(accounts.key, kind)}
    for name, time in accounts.times.items():
        made[name] = gathered.times(time, null_code="null_valid_from" if name == VALID_FROM else None)
    if accounts.history is not None:
        gathered.reject("history_empty", empty_intervals(made))
    return gathered.rows(made, columns)


def canonical_events(raw: pa.Table, events: EventsTable, columns: Iterable[str], kind: IdKind, place: Place) -> Rows:
    """Events of one batch; ``known_at`` is ``event_at`` where the table says so.

    Raises:
        Refused: ``id_physical_type`` or ``column_type``.
        PartitionError: ``invalid_utf8``, ``naive_timestamp``.
    """
    gathered = _Batch(raw, place)
    made = {ACCOUNT_ID: gathered.ids(events.key, kind), "event_at": gathered.times(events.event_at, null_code="null_event_at")}
    if isinstance(events.known_at, TimeColumn):
        made["known_at"] = gathered.times(events.known_at, null_code="null_known_at")
        gathered.reject("event_in_future", _later(made["event_at"], made["known_at"], events.skew))
    else:
        made["known_at"] = made["event_at"]
    return gathered.rows(made, columns)


class _Batch:
    """One batch while its columns are made; the first code that meets a row is its code."""

    def __init__(self, raw: pa.Table, place: Place) -> None:
        self._raw = raw
        self._place = place
        self._good = np.ones(len(raw), np.bool_)
        self._rejects: list[pa.Table] = []

    def ids(self, column: str, kind: IdKind) -> pa.Array:
        """Account ids of the declared kind; null and negative ones are rejected."""
        values = decoded(self._raw[column])
        refuse_id_type(values.type, kind, where=f"{self._place.source}: {column}")
        self.reject("null_id", values.is_null().to_numpy(zero_copy_only=False))
        if pa.types.is_null(values.type):
            return values.cast(ID_TYPES[kind])
        if kind == "string":
            return _valid_text(values, f"{self._place.source}: {column}")
        if pa.types.is_signed_integer(values.type):
            negative = pc.fill_null(pc.less(values, 0), fill_value=False)
            self.reject("id_range", negative.to_numpy(zero_copy_only=False))
            values = pc.if_else(negative, pa.scalar(None, values.type), values)
        return values.cast(pa.uint64())

    def times(self, time: TimeColumn, *, null_code: str | None) -> pa.Array:
        """A time column in UTC microseconds; what is beyond years 1 to 9999 is rejected, null only with a ``null_code``."""
        values = decoded(self._raw[time.column])
        where = f"{self._place.source}: {time.column}"
        moments, beyond = to_utc(values, time, where)
        self.reject("timestamp_range", beyond)
        if null_code is not None:
            self.reject(null_code, values.is_null().to_numpy(zero_copy_only=False))
        return moments

    def reject(self, code: str, mask: Mask) -> None:
        """Set rows aside under ``code``, unless they are already."""
        rows = np.flatnonzero(mask & self._good)
        if len(rows):
            self._good[rows] = False
            columns = [
                pa.repeat(self._place.source, len(rows)),
                pa.array(rows + self._place.first_row),
                pa.repeat(code, len(rows)),
            ]
            self._rejects.append(pa.table(columns, schema=REJECTS))

    def rows(self, made: dict[str, pa.Array], columns: Iterable[str]) -> Rows:
        """The good rows with the columns ``made`` and the raw ``columns``."""
        for name in columns:
            made[name] = _text_checked(decoded(self._raw[name]), f"{self._place.source}: {name}")
        table = pa.table(made)
        table = table if self._good.all() else table.filter(pa.array(self._good))
        return Rows(table, pa.concat_tables(self._rejects) if self._rejects else REJECTS.empty_table())


def decoded(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One plain array: chunks joined, dictionaries decoded, text in its 32-bit form where it fits."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    array = _joined(column) if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # more than 2 GiB of text
        array = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in array.chunks])
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    return array


def _joined(column: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies even one chunk


def refuse_id_type(kind_found: pa.DataType, kind: IdKind, *, where: str) -> None:
    """Raise Refused unless a column of that type can hold ids of ``kind`` exactly."""
    inexact = pa.types.is_floating(kind_found) or pa.types.is_decimal(kind_found) or pa.types.is_boolean(kind_found)
    if inexact:
        raise Refused(
            "id_physical_type",
            f"account ids are {kind_found}: they may already have lost digits",
            where=where,
            remedy="write them as integers or text where they are made",
        )
    fits = pa.types.is_integer(kind_found) if kind == "integer" else is_text(kind_found)
    if not fits and not pa.types.is_null(kind_found):
        raise Refused(
            "column_type",
            f"account ids are {kind_found}, the feature set says {kind}",
            where=where,
            remedy="set account_id in the feature set to what the ids are; kinds are never mixed",
        )


def is_number(kind: pa.DataType) -> bool:
    """What a feature can be made of: a float, an integer, a decimal, a bool, or nothing but nulls."""
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal128(kind)
        or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )  # fmt: skip


def is_text(kind: pa.DataType) -> bool:
    """Text, or bytes that must be UTF-8."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )  # fmt: skip


def is_category(kind: pa.DataType) -> bool:
    """What a category can be: text, or nothing but nulls."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(text or pa.types.is_null(kind))


def _valid_text(values: pa.Array, where: str) -> pa.Array:
    """Text whose bytes are UTF-8, as `pa.string()`."""
    try:
        text = values.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowInvalid:
        raise PartitionError(
            "invalid_utf8", "holds bytes that are not UTF-8", where=where, remedy="mend the file where it is made"
        ) from None
    return text


def _text_checked(values: pa.Array, where: str) -> pa.Array:
    return _valid_text(values, where) if pa.types.is_string(values.type) else values


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


@lru_cache
def _is_zone(zone: str) -> bool:
    try:
        pc.assume_timezone(pa.array([0], pa.timestamp("s")), zone, ambiguous="earliest", nonexistent="earliest")
    except (pa.ArrowException, KeyError):
        return False
    return True


def refuse_time_type(kind: pa.DataType, time: TimeColumn, *, where: str) -> None:
    """Raise Refused unless a column of that type (or one of nothing but nulls) is a time as ``time`` declares it."""
    if pa.types.is_null(kind):
        return
    if pa.types.is_integer(kind):
        if time.unit is None:
            raise Refused(
                "column_type",
                f"is {kind}, and no unit is declared",
                where=where,
                remedy=f"declare it: {{column: {time.column}, unit: s}}",
            )
        return
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise Refused(
            "column_type",
            f"is {kind}, which is no time",
            where=where,
            remedy="use a timestamp, a date, or an integer with a unit",
        )
    naive = pa.types.is_date(kind) or kind.tz is None
    if naive and (time.zone is None or not _is_zone(time.zone)):
        what = "has no zone, and none is declared" if time.zone is None else f"has no zone, and {time.zone!r} is none"
        raise Refused("naive_timestamp", what, where=where, remedy=f"declare it: {{column: {time.column}, zone: UTC}}")


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


def _later(event_at: pa.Array, known_at: pa.Array, skew: timedelta) -> Mask:
    """Events dated later than they were known, by more than the declared skew."""
    allowed = pc.add(known_at.cast(pa.int64()), skew // timedelta(microseconds=1))
    late: Any = pc.fill_null(pc.greater(event_at.cast(pa.int64()), allowed), fill_value=False)
    found: Mask = late.to_numpy(zero_copy_only=False)
    return found
