"""Rollups: events brought down to one row per account, event grain and known grain. Table → table.

A rollup holds partial aggregates that merge exactly and in any order: counts; sums of integers; least and largest; the
last moment; for distinct counts the smallest K + 1 of the values' 64-bit hashes. So a file may be rolled up whole or in
pieces, alone or with others, and `windows` gives the same bits. Nulls of a measured column are passed over, and so are
NaN; sums are of integers only, since sums of floats depend on their order.

Columns: ``account_id``; ``event_grain``, ``known_grain`` (int32, grains since 1970); ``n`` (int64, events); ``last_at``
(timestamp[us, UTC], the latest event_at); and for each measured column ``c`` as needed ``c__valid`` (int64, values
present), ``c__sum`` (int64), ``c__min``, ``c__max`` (int64 or float64), ``c__distinct`` (list of uint64, ascending).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import PartitionError, Problem
from batchscore.features.feature_set import FeatureSet
from batchscore.keys import ACCOUNT_ID, ID_TYPES, hash64

KEYS: Final = (ACCOUNT_ID, "event_grain", "known_grain")
MOMENT: Final = pa.timestamp("us", tz="UTC")
_EXACT: Final = float(1 << 62)  # absolute sums up to here cannot have wrapped, whatever float64 rounded


def roll_up(events: pa.Table, feature_set: FeatureSet, table: str) -> pa.Table:
    """Bring canonical events of one table down to rollup rows, sorted by `KEYS`.

    Args:
        events: ``account_id``, ``event_at``, ``known_at`` (timestamp[us, UTC], no nulls) and the measured columns.
        feature_set: Says which measures there are.
        table: Which events table of the feature set ``events`` are of.

    Raises:
        PartitionError: ``sum_overflow``, or ``column_type`` for a measure its column cannot have.
    """
    measures = feature_set.measures(table)
    grain_us = int(feature_set.grain.total_seconds()) * 1_000_000
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        ACCOUNT_ID: events[ACCOUNT_ID],
        "event_grain": _grains(events["event_at"], grain_us),
        "known_grain": _grains(events["known_at"], grain_us),
        "last_at": events["event_at"],
    }
    wanted: list[tuple[str | list[str], str] | tuple[list[str], str]] = [([], "count_all"), ("last_at", "max")]
    names = ["n", "last_at"]
    for column in dict.fromkeys(column for column, _ in measures):
        aggregates = [aggregate for measured, aggregate in measures if measured == column]
        if set(aggregates) - {"distinct"}:
            columns[column] = _number(events[column], column)
            wanted.append((column, "count"))
            names.append(f"{column}__valid")
        for aggregate in aggregates:
            if aggregate == "distinct":
                columns[f"{column}__hash"] = _hashes(events[column])
            if aggregate == "sum":
                _refuse_overflow(columns[column], column)
            wanted.append((f"{column}__hash" if aggregate == "distinct" else column, aggregate))
            names.append(f"{column}__{aggregate}")
    grouped = pa.table(columns).group_by(list(KEYS), use_threads=False).aggregate(wanted)
    limit = feature_set.events_table(table).distinct_limit
    rolled = pa.table(
        {
            **{key: grouped[key] for key in KEYS},
            **{name: grouped[_aggregated(of)] for name, of in zip(names, wanted, strict=True)},
        }
    )
    for name in names:
        if name.endswith("__distinct"):
            rolled = rolled.set_column(rolled.column_names.index(name), name, _smallest(rolled[name].combine_chunks(), limit + 1))
    return rolled.cast(rollup_schema(feature_set, table, events.schema)).sort_by([(key, "ascending") for key in KEYS])


def rollup_schema(feature_set: FeatureSet, table: str, events: pa.Schema) -> pa.Schema:
    """The schema of a rollup of events with the schema ``events``."""
    fields = [
        (ACCOUNT_ID, ID_TYPES[feature_set.account_id]),
        ("event_grain", pa.int32()),
        ("known_grain", pa.int32()),
        ("n", pa.int64()),
        ("last_at", MOMENT),
    ]
    measures = feature_set.measures(table)
    for column in dict.fromkeys(column for column, _ in measures):
        aggregates = [aggregate for measured, aggregate in measures if measured == column]
        if set(aggregates) - {"distinct"}:
            fields.append((f"{column}__valid", pa.int64()))
        held = pa.float64() if pa.types.is_floating(events.field(column).type) else pa.int64()
        fields += [
            (f"{column}__{aggregate}", pa.list_(pa.uint64()) if aggregate == "distinct" else held) for aggregate in aggregates
        ]
    return pa.schema(fields)


def check_measures(feature_set: FeatureSet, table: str, schema: pa.Schema) -> tuple[Problem, ...]:
    """Measures that the columns of ``schema`` cannot have; a column that is absent is somebody else's to tell."""
    problems = []
    for column, aggregate in feature_set.measures(table):
        at = schema.get_field_index(column)
        if at < 0 or aggregate == "distinct":
            continue
        kind = schema.field(at).type
        whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        if not whole and not (pa.types.is_floating(kind) and aggregate in {"min", "max"}):
            allowed = "integers only: a sum of floats depends on their order" if aggregate == "sum" else "numbers only"
            problems.append(
                Problem(
                    where=f"{table}.{column}",
                    what=f"{aggregate} of {kind} is not possible; {allowed}",
                    remedy="store whole units (cents, bytes), or use another aggregate",
                )
            )
    return tuple(problems)


def _aggregated(of: tuple[str | list[str], str] | tuple[list[str], str]) -> str:
    """The name `TableGroupBy.aggregate` gives a result."""
    column, aggregate = of
    return aggregate if isinstance(column, list) else f"{column}_{aggregate}"


def _grains(moments: pa.ChunkedArray, grain_us: int) -> pa.Array:
    """Whole grains since 1970, rounded down also before it, int32."""
    us = moments.cast(MOMENT).cast(pa.int64()).to_numpy()
    return pa.array(np.floor_divide(us, grain_us).astype(np.int32))


def _number(values: pa.ChunkedArray, column: str) -> pa.ChunkedArray | pa.Array:
    """int64 or float64; NaN becomes null and −0.0 becomes 0.0, so that least and largest have one form."""
    kind = values.type
    if pa.types.is_floating(kind):
        values = values.cast(pa.float64())
        return pc.add(pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values), 0.0)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            raise _overflow(column) from None
    raise PartitionError(
        "column_type", f"is {kind}, which cannot be summed or compared", where=column, remedy="measure another column"
    )


def _hashes(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """64-bit hashes of the values, null where they are null."""
    return pa.chunked_array([_hashes_of(chunk) for chunk in values.chunks], type=pa.uint64())


def _hashes_of(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.add(values.cast(pa.float64()), 0.0).view(pa.int64())
    elif pa.types.is_temporal(values.type):
        values = values.cast(pa.int64())
    elif pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if not values.null_count:
        return pa.array(hash64(values))
    present = values.is_valid()
    hashes = np.zeros(len(values), np.uint64)
    hashes[present.to_numpy(zero_copy_only=False)] = hash64(values.filter(present))
    return pc.if_else(present, pa.array(hashes), pa.scalar(None, pa.uint64()))


def _refuse_overflow(values: pa.ChunkedArray | pa.Array, column: str) -> None:
    """Arrow's sum wraps without a word; a bound on the absolute sum of everything rules that out for every group."""
    numbers = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
    if not pa.types.is_integer(values.type):
        raise PartitionError(
            "column_type", f"is {values.type}; sums are of integers only", where=column, remedy="store whole units (cents, bytes)"
        )
    if float(np.abs(np.nan_to_num(numbers).astype(np.float64)).sum()) >= _EXACT:
        raise _overflow(column)


def _overflow(column: str) -> PartitionError:
    return PartitionError("sum_overflow", "a sum leaves the integers that are exact", where=column, remedy="store a larger unit")


def _smallest(lists: pa.ListArray, limit: int) -> pa.ListArray:
    """Each list sorted, and cut to its ``limit`` smallest values."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values.to_numpy()[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    owner = np.repeat(np.arange(len(lists)), lengths)
    values = values[np.lexsort((values, owner))]
    place = np.arange(len(values)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    return _lists(values[place < limit], np.minimum(lengths, limit))


def _lists(values: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]) -> pa.ListArray:
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), pa.array(values, pa.uint64())
    )
