"""Raw rows become canonical ones: exact ids, times in UTC microseconds, rows that cannot be used set aside under a code.

Accounts: ``account_id``, ``created_at``, ``deleted_at``, ``valid_from`` and ``valid_to`` where declared, then the columns that
features read. Events: ``account_id``, ``event_at``, ``known_at``, then the measured columns. What is wrong with a *column*
stops the partition or the run; what is wrong with a *row* goes to the rejects, which hold the file, the row's number and a
code, no values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import PartitionError
from batchscore.features.accounts import empty_intervals
from batchscore.features.tables import VALID_FROM, AccountsTable, EventsTable, TimeColumn
from batchscore.keys import ACCOUNT_ID, ID_TYPES, IdKind
from batchscore.settings import STRING_ID_BYTES
from batchscore.sources.column_types import refuse_id_type
from batchscore.sources.utc_times import Mask, to_utc

REJECTS: Final = pa.schema([("file", pa.string()), ("row", pa.int64()), ("code", pa.string())])


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
    if kind == "string":  # better than a run that ends at its release; events of such an account are of an unknown one
        gathered.reject("id_length", _longer(made[ACCOUNT_ID], STRING_ID_BYTES))
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


def _longer(text: pa.Array, most: int) -> Mask:
    """Which texts have more than so many bytes."""
    beyond: Any = pc.fill_null(pc.greater(pc.binary_length(text), most), fill_value=False)
    found: Mask = beyond.to_numpy(zero_copy_only=False)
    return found


def _later(event_at: pa.Array, known_at: pa.Array, skew: timedelta) -> Mask:
    """Events dated later than they were known, by more than the declared skew."""
    allowed = pc.add(known_at.cast(pa.int64()), skew // timedelta(microseconds=1))
    late: Any = pc.fill_null(pc.greater(event_at.cast(pa.int64()), allowed), fill_value=False)
    found: Mask = late.to_numpy(zero_copy_only=False)
    return found
