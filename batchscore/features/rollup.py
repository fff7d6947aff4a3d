"""Rollups: events brought down to one row per account, event grain and known grain. Table → table.

A rollup holds partial aggregates that merge exactly and in any order: counts; sums of integers; least and largest; the
last moment; for distinct counts the smallest K + 1 of the values' 64-bit hashes. An event is a rollup row of one event, so
rolling up and merging are one function, and a file may be rolled up whole or in pieces, alone or with others: the bits
are the same. Nulls of a measured column are passed over, and so are NaN; sums are of integers only, since sums of floats
depend on their order.

Columns: ``account_id``; ``event_grain``, ``known_grain`` (int32, grains since 1970); ``n`` (int64, events); ``last_at``
(timestamp[us, UTC], the latest event_at); and for each measured column ``c`` as needed ``c__valid`` (int64, values
present), ``c__sum`` (int64), ``c__min``, ``c__max`` (int64 or float64), null where no value is present, and
``c__distinct`` (list of uint64, ascending).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import PartitionError, Problem
from batchscore.features.exact import Column, Ints, reduced, run_starts, summed
from batchscore.features.feature_set import FeatureSet
from batchscore.keys import ACCOUNT_ID, ID_TYPES, hash64

KEYS: Final = (ACCOUNT_ID, "event_grain", "known_grain")
MOMENT: Final = pa.timestamp("us", tz="UTC")
_WIDEST: Final = 1 << 62  # keys packed into one int64 must stay below this

# What `distinct` takes beside numbers.
_COUNTED: Final = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
    pa.types.is_timestamp, pa.types.is_date, pa.types.is_time, pa.types.is_duration,
)  # fmt: skip

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Hashes:
    """Hashes of one column, flattened: entry i belongs to ``row[i]`` and is ``words[word[i]]``; ``words`` ascend."""

    row: Ints
    word: Ints
    words: Words


@dataclass(frozen=True, slots=True, eq=False)
class _Partials:
    """Rows to be brought together. ``numbers`` hold what changes nothing (0, or the far end) where no value is present."""

    accounts: pa.Array
    event: Ints
    known: Ints
    numbers: dict[str, Column]
    hashes: dict[str, _Hashes]


def roll_up(events: pa.Table, feature_set: FeatureSet, table: str) -> pa.Table:
    """Bring canonical events of one table down to rollup rows, sorted by `KEYS`.

    Args:
        events: ``account_id``, ``event_at``, ``known_at`` (timestamp[us, UTC], no nulls) and the measured columns.
        feature_set: Says which measures there are.
        table: Which events table of the feature set ``events`` are of.

    Raises:
        PartitionError: ``sum_overflow``, or ``column_type`` for a measure its column cannot have.
    """
    schema = rollup_schema(feature_set, table, events.schema)
    at, ones = _us(events["event_at"]), np.ones(len(events), np.int64)
    numbers: dict[str, Column] = {"n": ones, "last_at": at}
    hashes = {}
    for column, aggregates in _by_column(feature_set, table).items():
        _require(events.schema.field(column).type, aggregates, column)
        if "distinct" in aggregates:
            hashes[f"{column}__distinct"] = _hashes(events[column])
        if aggregates != ["distinct"]:
            values, present = _measured(events[column], column)
            numbers[f"{column}__valid"] = ones if present is None else present.astype(np.int64)
            for aggregate in aggregates:
                if aggregate != "distinct":
                    numbers[f"{column}__{aggregate}"] = _neutral_where_absent(values, present, aggregate)
    grain_us = int(feature_set.grain.total_seconds()) * 1_000_000
    event, known = (np.floor_divide(moments, grain_us) for moments in (at, _us(events["known_at"])))  # down, before 1970 too
    partials = _Partials(events[ACCOUNT_ID].combine_chunks(), event, known, numbers, hashes)
    return _combined(partials, schema, feature_set.events_table(table).distinct_limit)


def merge(rollups: Sequence[pa.Table], feature_set: FeatureSet, table: str) -> pa.Table:
    """Bring rollups of one table (at least one, in any order) together: bit by bit the rollup of all their events at once.

    Raises:
        PartitionError: ``sum_overflow``.
    """
    held = pa.concat_tables(rollups, promote_options="permissive").combine_chunks()
    numbers: dict[str, Column] = {"n": held["n"].to_numpy(), "last_at": _us(held["last_at"])}
    hashes = {}
    for column, aggregates in _by_column(feature_set, table).items():
        if aggregates != ["distinct"]:
            numbers[f"{column}__valid"] = held[f"{column}__valid"].to_numpy()
        for aggregate in aggregates:
            name = f"{column}__{aggregate}"
            if aggregate == "distinct":
                row, flat = flattened(held[name].combine_chunks())
                words, word = np.unique(flat, return_inverse=True)
                hashes[name] = _Hashes(row, word, words)
            else:
                present = numbers[f"{column}__valid"] > 0
                numbers[name] = _neutral_where_absent(held[name].fill_null(0).to_numpy(), present, aggregate)
    event, known = (held[grain].to_numpy().astype(np.int64) for grain in ("event_grain", "known_grain"))
    partials = _Partials(held[ACCOUNT_ID].combine_chunks(), event, known, numbers, hashes)
    return _combined(partials, held.schema, feature_set.events_table(table).distinct_limit)


def rollup_schema(feature_set: FeatureSet, table: str, events: pa.Schema) -> pa.Schema:
    """The schema of a rollup of events with the schema ``events``."""
    fields = [
        (ACCOUNT_ID, ID_TYPES[feature_set.account_id]),
        ("event_grain", pa.int32()),
        ("known_grain", pa.int32()),
        ("n", pa.int64()),
        ("last_at", MOMENT),
    ]
    for column, aggregates in _by_column(feature_set, table).items():
        if aggregates != ["distinct"]:
            fields.append((f"{column}__valid", pa.int64()))
        held = pa.float64() if pa.types.is_floating(_value_type(events.field(column).type)) else pa.int64()
        fields += [
            (f"{column}__{aggregate}", pa.list_(pa.uint64()) if aggregate == "distinct" else held) for aggregate in aggregates
        ]
    return pa.schema(fields)


def check_measures(feature_set: FeatureSet, table: str, schema: pa.Schema) -> tuple[Problem, ...]:
    """Measures that the columns of ``schema`` cannot have; a column that is absent is somebody else's to tell."""
    problems = []
    for column, aggregate in feature_set.measures(table):
        at = schema.get_field_index(column)
        if at < 0 or (refusal := _refusal(schema.field(at).type, aggregate)) is None:
            continue
        problems.append(
            Problem(
                where=f"{table}.{column}",
                what=f"{aggregate} of {schema.field(at).type} is not possible; {refusal}",
                remedy="store whole units (cents, bytes), or use another aggregate",
            )
        )
    return tuple(problems)


def flattened(lists: pa.ListArray) -> tuple[Ints, Words]:
    """The values of all lists, and the row that each is of."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(lists)), np.diff(offsets))
    return row, lists.values.to_numpy()[offsets[0] : offsets[-1]] if len(lists) else np.empty(0, np.uint64)


def _by_column(feature_set: FeatureSet, table: str) -> dict[str, list[str]]:
    """Aggregates of each measured column, in the order of the rollup's columns."""
    found: dict[str, list[str]] = {}
    for column, aggregate in feature_set.measures(table):
        found.setdefault(column, []).append(aggregate)
    return found


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _refusal(kind: pa.DataType, aggregate: str) -> str | None:
    """Why a column of that type cannot have the aggregate; None when it can. A column of nothing but nulls can."""
    kind = _value_type(kind)
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    if aggregate == "sum":
        return None if whole else "integers only: a sum of floats depends on their order"
    if whole or pa.types.is_floating(kind):
        return None
    if aggregate != "distinct":
        return "numbers only"
    return None if any(is_kind(kind) for is_kind in _COUNTED) else "numbers, text and times only"


def _require(kind: pa.DataType, aggregates: Sequence[str], column: str) -> None:
    """`check_measures` refuses at plan; this is for a file that came later."""
    for aggregate in aggregates:
        if (refusal := _refusal(kind, aggregate)) is not None:
            raise PartitionError("column_type", f"is {kind}; {refusal}", where=column, remedy="measure another column")


def _combined(partials: _Partials, schema: pa.Schema, limit: int) -> pa.Table:
    """One row for each key, sorted by `KEYS`."""
    order, starts = _grouped(partials)
    first = order[starts]  # any row of a group has its keys
    columns: dict[str, pa.Array] = {
        ACCOUNT_ID: partials.accounts.take(pa.array(first)),
        "event_grain": pa.array(partials.event[first].astype(np.int32)),
        "known_grain": pa.array(partials.known[first].astype(np.int32)),
    }
    found = {name: _aggregated(name, values[order], starts) for name, values in partials.numbers.items()}
    for name in schema.names[len(KEYS) :]:
        column, _, aggregate = name.rpartition("__")
        if name in partials.hashes:
            columns[name] = _smallest(partials.hashes[name], order, starts, limit + 1)
        else:
            empty = found[f"{column}__valid"] == 0 if aggregate in {"sum", "min", "max"} else None
            columns[name] = pa.array(found[name], mask=empty)
    return pa.table(columns).cast(schema)


def _grouped(partials: _Partials) -> tuple[Ints, Ints]:
    """The order of the rows by `KEYS`, and where in it each group starts."""
    encoded = partials.accounts.dictionary_encode()
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    code = rank[encoded.indices.to_numpy()]
    n_codes = len(rank)
    for grains in (partials.event, partials.known) if len(code) else ():
        low = int(grains.min())
        span = int(grains.max()) - low + 1
        if n_codes * span >= _WIDEST:  # moments thousands of years apart: only the codes that occur get a number
            code, n_codes = np.unique(code, return_inverse=True)[1], len(code)
        code = code * span + (grains - low)
        n_codes *= span
    order = np.argsort(code)  # rows of a group may come in any order: every aggregate is free of it
    return order, run_starts(code[order])


def _aggregated(name: str, values: Column, starts: Ints) -> Column:
    where, _, aggregate = name.rpartition("__")
    match aggregate:
        case "last_at" | "max":
            return reduced(np.maximum, values, starts)
        case "min":
            return reduced(np.minimum, values, starts)
        case _:
            return summed(values, starts, where)


def _smallest(hashes: _Hashes, order: Ints, starts: Ints, limit: int) -> pa.ListArray:
    """For each group its different hashes, ascending, cut to the ``limit`` smallest."""
    group = np.empty(len(order), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    pairs = np.sort(group[hashes.row] * len(hashes.words) + hashes.word)  # below rows × words: far from 2^63
    pairs = pairs[run_starts(pairs)]
    owner, word = np.divmod(pairs, max(1, len(hashes.words)))
    lengths = np.bincount(owner, minlength=len(starts))
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, limit))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(hashes.words[word[place < limit]], pa.uint64()))


def _measured(values: pa.ChunkedArray, column: str) -> tuple[Column, Mask | None]:
    """Numbers as int64 or float64 (−0.0 as 0.0, so that least and largest have one form), and which of them are present.

    None: all are. NaN is not.
    """
    values = values.cast(_value_type(values.type))
    if pa.types.is_floating(values.type):
        floats = values.cast(pa.float64()).fill_null(np.nan).to_numpy() + 0.0
        return floats, ~np.isnan(floats)
    try:
        whole = values.cast(pa.int64())
    except pa.ArrowInvalid:
        raise PartitionError(
            "sum_overflow", "holds integers beyond 2^63 − 1", where=column, remedy="store a larger unit"
        ) from None
    return whole.fill_null(0).to_numpy(), whole.is_valid().to_numpy() if whole.null_count else None


def _neutral_where_absent(values: Column, present: Mask | None, aggregate: str) -> Column:
    """``values`` with what changes nothing where none is present."""
    if present is None:
        return values
    if aggregate == "sum":
        return np.where(present, values, 0)
    if values.dtype == np.float64:
        return np.where(present, values, np.inf if aggregate == "min" else -np.inf)
    ends = np.iinfo(np.int64)
    return np.where(present, values, ends.max if aggregate == "min" else ends.min)


def _hashes(values: pa.ChunkedArray) -> _Hashes:
    """Hashes of the values that are present; each different value is hashed once."""
    encoded = _hashable(values.combine_chunks()).dictionary_encode()
    words, rank = np.unique(hash64(encoded.dictionary.drop_null()), return_inverse=True)
    row = np.flatnonzero(encoded.is_valid().to_numpy(zero_copy_only=False))
    return _Hashes(row, rank[encoded.indices.drop_null().to_numpy()], words)


def _hashable(values: pa.Array) -> pa.Array:
    """Integers, or text and bytes, that are equal when the values are; NaN is null."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _hashable(values.dictionary_decode())
    if pa.types.is_floating(kind):
        floats = pc.add(values.cast(pa.float64()), 0.0)
        return pc.if_else(pc.is_nan(floats), pa.scalar(None, pa.float64()), floats).view(pa.int64())
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return values.cast(pa.int32())
    if pa.types.is_temporal(kind):
        return values.cast(pa.int64())
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.int8())
    return values


def _us(moments: pa.ChunkedArray) -> Ints:
    """Moments as int64 microseconds since 1970."""
    us: Ints = moments.cast(MOMENT).cast(pa.int64()).to_numpy()
    return us
