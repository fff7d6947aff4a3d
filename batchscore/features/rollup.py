"""Rollups: events brought down to one row per account, event grain and known grain. Table → table.

A rollup holds `partials`, which merge exactly and in any order. An event is a rollup row of one event, so rolling up and merging
are one function, and a file may be rolled up whole or in pieces, alone or with others: the bits are the same. Nulls of a
measured column are passed over, and so are NaN; sums are of integers and decimals only, since sums of floats depend on
their order. Its columns are those of `rollup_columns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import PartitionError
from batchscore.features.exact import Column, Ints, carried, reduced, run_starts, squares, summed
from batchscore.features.feature_set import FeatureSet
from batchscore.features.measured import (
    NO_TIE,
    Hashes,
    Mask,
    Numbers,
    as_held,
    hashes_of,
    numbers_of,
    presence_of,
    ties_of,
    unscaled,
)
from batchscore.features.partials import Partial
from batchscore.features.rollup_columns import all_partials, check_measures, columns_of_partial, rollup_schema
from batchscore.features.tables import EventsTable
from batchscore.features.where import mask_of
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.where import Where

_WIDEST: Final = 1 << 62  # keys packed into one int64 must stay below this
_ENDS: Final = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """Candidates for a first or last value, one a row: what orders them, most weighty first, and which rows have one."""

    keys: tuple[Column, Column, Column, Column]  # event_at, known_at (microseconds), tie, value
    present: Mask


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Rows to be brought together. ``numbers`` hold what changes nothing (0, or the far end) where no value is present."""

    accounts: pa.Array
    event: Ints
    known: Ints
    numbers: dict[str, Column]
    ends: dict[Partial, _Ends]
    hashes: dict[Partial, Hashes]


def roll_up(events: pa.Table, feature_set: FeatureSet, table: str) -> pa.Table:
    """Bring canonical events of one table down to rollup rows, sorted by `KEYS`.

    Args:
        events: ``account_id``, ``event_at``, ``known_at`` (timestamp[us, UTC], no nulls) and the columns that features read.
        feature_set: Says which partials there are.
        table: Which events table of the feature set ``events`` are of.

    Raises:
        PartitionError: ``sum_overflow``, or ``column_type`` for what a column cannot have.
    """
    for problem in check_measures(feature_set, table, events.schema):  # planning refuses these; a file may have come later
        raise PartitionError("column_type", problem.what, where=problem.where, remedy=problem.remedy)
    measured = _Measured(events, feature_set.events_table(table))
    for partial in all_partials(feature_set, table):
        measured.add(partial)
    grain_us = int(feature_set.grain.total_seconds()) * 1_000_000
    event, known = (
        np.floor_divide(moments, grain_us) for moments in (measured.at, _us(events["known_at"]))
    )  # down, before 1970 too
    rows = _Rows(events[ACCOUNT_ID].combine_chunks(), event, known, measured.numbers, measured.ends, measured.hashes)
    return _combined(rows, rollup_schema(feature_set, table, events.schema), feature_set, table)


class _Measured:
    """The partials of single events, gathered one after the other; what several of them need is made once."""

    def __init__(self, events: pa.Table, table: EventsTable) -> None:
        self.at = _us(events["event_at"])
        self.numbers: dict[str, Column] = {}
        self.ends: dict[Partial, _Ends] = {}
        self.hashes: dict[Partial, Hashes] = {}
        self._events = events
        self._table = table
        self._masks: dict[Where, Mask | None] = {(): None}
        self._read: dict[str, Numbers] = {}
        self._hashed: dict[str, Hashes] = {}

    def add(self, partial: Partial) -> None:
        """Gather one partial."""
        mask = self._mask(partial.where)
        column = partial.column
        if column is None:
            ones = np.ones(len(self._events), np.int64) if mask is None else mask.astype(np.int64)
            self.numbers[partial.name] = ones if partial.part == "n" else _neutral(Numbers(self.at, mask), "max")
        elif partial.part in {"distinct", "top"}:
            if column not in self._hashed:
                self._hashed[column] = hashes_of(self._events[column], column, self._table.decimals.get(column))
            self.hashes[partial] = self._hashed[column].among(mask)
        elif partial.part == "valid":
            present = _both(mask, presence_of(self._events[column]))
            self.numbers[partial.name] = np.ones(len(self._events), np.int64) if present is None else present.astype(np.int64)
        else:
            self._add_numbers(partial, column, self._numbers(column, mask))

    def _add_numbers(self, partial: Partial, column: str, found: Numbers) -> None:
        match partial.part:
            case "square":
                lanes = squares(_neutral(found, "sum"), column)
                self.numbers[partial.name], self.numbers[partial.beside("_low")] = lanes
            case "first" | "last":
                present = np.ones(len(self._events), np.bool_) if found.present is None else found.present
                tie = self._table.tie
                ties = np.full(len(self._events), NO_TIE) if tie is None else ties_of(self._events[tie], tie)
                self.ends[partial] = _Ends((self.at, _us(self._events["known_at"]), ties, found.values), present)
            case _:
                self.numbers[partial.name] = _neutral(found, partial.part)

    def _mask(self, where: Where) -> Mask | None:
        if where not in self._masks:
            self._masks[where] = mask_of(self._events, where)
        return self._masks[where]

    def _numbers(self, column: str, mask: Mask | None) -> Numbers:
        if column not in self._read:
            self._read[column] = numbers_of(self._events[column], column, self._table.decimals.get(column))
        found = self._read[column]
        return Numbers(found.values, _both(mask, found.present))


def merge(rollups: Sequence[pa.Table], feature_set: FeatureSet, table: str) -> pa.Table:
    """Bring rollups of one table (at least one, in any order) together: bit by bit the rollup of all their events at once.

    Raises:
        PartitionError: ``sum_overflow``.
    """
    held = pa.concat_tables(rollups, promote_options="permissive").combine_chunks()
    event, known = (held[grain].to_numpy().astype(np.int64) for grain in ("event_grain", "known_grain"))
    rows = _Rows(held[ACCOUNT_ID].combine_chunks(), event, known, {}, {}, {})
    for partial in all_partials(feature_set, table):
        if partial.part in {"distinct", "top"}:
            row, flat = flattened(held[partial.name])
            words, word = np.unique(flat, return_inverse=True)
            counts = flattened(held[partial.beside("_n")])[1] if partial.part == "top" else None
            rows.hashes[partial] = Hashes(row, word, words, counts)
        elif partial.part in {"first", "last"}:
            rows.ends[partial] = ends_of(held, partial)
        else:
            for name in columns_of_partial(partial):
                present = held[name].is_valid().to_numpy() if held[name].null_count else None
                rows.numbers[name] = _neutral(Numbers(whole(held[name], name), present), partial.part)
    return _combined(rows, held.schema, feature_set, table)


def ends_of(held: pa.Table, partial: Partial) -> _Ends:
    """First or last values that a rollup holds."""
    at, known = (whole(held[partial.beside(more)], partial.name) for more in ("_at", "_known"))
    value = whole(held[partial.name], partial.name)
    present = held[partial.name].is_valid().to_numpy()
    return _Ends((at, known, whole(held[partial.beside("_tie")], partial.name), value), present)


def whole(values: pa.ChunkedArray, name: str) -> Column:
    """A column of a rollup as int64 or float64; 0 where null."""
    if pa.types.is_decimal(values.type):
        return unscaled(values, name)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    found: Column = values.fill_null(0).to_numpy()
    return found


def flattened(column: pa.ChunkedArray) -> tuple[Ints, Column]:
    """The values of all lists (of uint64 or int64), and the row that each is of."""
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(lists)), np.diff(offsets))
    return row, lists.values.to_numpy()[offsets[0] : offsets[-1]] if len(lists) else lists.values.to_numpy()[:0]


def _combined(rows: _Rows, schema: pa.Schema, feature_set: FeatureSet, table: str) -> pa.Table:
    """One row for each key, sorted by `KEYS`."""
    order, starts = _grouped(rows)
    first = order[starts]  # any row of a group has its keys
    columns: dict[str, pa.Array] = {
        ACCOUNT_ID: rows.accounts.take(pa.array(first)),
        "event_grain": pa.array(rows.event[first].astype(np.int32)),
        "known_grain": pa.array(rows.known[first].astype(np.int32)),
    }
    brought = _Combined(rows, order, starts, schema)
    for partial in all_partials(feature_set, table):
        match partial.part:
            case "distinct" | "top":
                columns |= brought.smallest(partial, feature_set.events_table(table).distinct_limit + 1)
            case "first" | "last":
                columns |= brought.end(partial)
            case "last_at" | "min" | "max":
                columns[partial.name] = brought.extreme(partial)
            case "square":
                columns |= brought.square(partial)
            case _:
                columns[partial.name] = brought.sum(partial)
    return pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)


class _Combined:
    """Groups of rows brought together, one partial after the other."""

    def __init__(self, rows: _Rows, order: Ints, starts: Ints, schema: pa.Schema) -> None:
        self._rows = rows
        self._order = order
        self._starts = starts
        self._schema = schema

    def sum(self, partial: Partial) -> pa.Array:
        values = self._rows.numbers[partial.name][self._order]
        sums = summed(values, self._starts, partial.column or "")
        absent = self._absent(partial) if partial.part == "sum" else None
        return as_held(sums, absent, self._schema.field(partial.name).type)

    def extreme(self, partial: Partial) -> pa.Array:
        function = np.minimum if partial.part == "min" else np.maximum
        found = reduced(function, self._rows.numbers[partial.name][self._order], self._starts)
        absent = self._absent(partial) if partial.column is not None or partial.where else None
        return as_held(found, absent, self._schema.field(partial.name).type)

    def square(self, partial: Partial) -> dict[str, pa.Array]:
        names = columns_of_partial(partial)
        column = partial.column or ""
        high, low = (summed(self._rows.numbers[name][self._order], self._starts, column) for name in names)
        return {name: pa.array(lane) for name, lane in zip(names, carried(high, low, column), strict=True)}

    def end(self, partial: Partial) -> dict[str, pa.Array]:
        ends = self._rows.ends[partial]
        keys, present = best_end(
            tuple(key[self._order] for key in ends.keys), ends.present[self._order], self._starts, partial.part
        )
        names = (partial.beside("_at"), partial.beside("_known"), partial.beside("_tie"), partial.name)
        absent = None if present.all() else ~present
        return {name: as_held(key, absent, self._schema.field(name).type) for name, key in zip(names, keys, strict=True)}

    def smallest(self, partial: Partial, limit: int) -> dict[str, pa.Array]:
        """For each group its different hashes, ascending, cut to the ``limit`` smallest; and how often each stands."""
        hashes, order, starts = self._rows.hashes[partial], self._order, self._starts
        group = np.empty(len(order), np.int64)
        group[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
        pairs = group[hashes.row] * len(hashes.words) + hashes.word  # below rows × words: far from 2^63
        if hashes.counts is None:
            pairs = np.sort(pairs)
            first = run_starts(pairs)
            counts = np.diff(first, append=len(pairs))
        else:
            sorting = np.argsort(pairs)
            pairs = pairs[sorting]
            first = run_starts(pairs)
            counts = reduced(np.add, hashes.counts[sorting], first)
        owner, word = np.divmod(pairs[first], max(1, len(hashes.words)))
        lengths = np.bincount(owner, minlength=len(starts))
        kept = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) < limit
        offsets = pa.array(np.concatenate([[0], np.cumsum(np.minimum(lengths, limit))]), pa.int32())
        found = {partial.name: pa.ListArray.from_arrays(offsets, pa.array(hashes.words[word[kept]], pa.uint64()))}
        if partial.part == "top":
            found[partial.beside("_n")] = pa.ListArray.from_arrays(offsets, pa.array(counts[kept], pa.int64()))
        return found

    def _absent(self, partial: Partial) -> Mask | None:
        """Groups in which no value is present."""
        n = reduced(np.add, self._rows.numbers[partial.valid.name][self._order], self._starts)
        absent: Mask = n == 0
        return absent if absent.any() else None


def best_end(keys: tuple[Column, ...], present: Mask, starts: Ints, part: str) -> tuple[tuple[Column, ...], Mask]:
    """The first or last of each run, by its keys one after the other: (its keys, whether the run has one)."""
    function = np.maximum if part == "last" else np.minimum
    lengths = np.diff(starts, append=len(present))
    left, found = present.copy(), []
    for key in keys:
        best = reduced(function, _neutral(Numbers(key, left), "max" if part == "last" else "min"), starts)
        left &= key == np.repeat(best, lengths)
        found.append(best)
    return tuple(found), reduced(np.logical_or, present, starts)


def _grouped(rows: _Rows) -> tuple[Ints, Ints]:
    """The order of the rows by `KEYS`, and where in it each group starts."""
    encoded = rows.accounts.dictionary_encode()
    rank = np.empty(len(encoded.dictionary), np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank))
    code = rank[encoded.indices.to_numpy()]
    n_codes = len(rank)
    for grains in (rows.event, rows.known) if len(code) else ():
        low = int(grains.min())
        span = int(grains.max()) - low + 1
        if n_codes * span >= _WIDEST:  # moments thousands of years apart: only the codes that occur get a number
            code, n_codes = np.unique(code, return_inverse=True)[1], len(code)
        code = code * span + (grains - low)
        n_codes *= span
    order = np.argsort(code)  # rows of a group may come in any order: every partial is free of it
    return order, run_starts(code[order])


def _both(mask: Mask | None, other: Mask | None) -> Mask | None:
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def _neutral(numbers: Numbers, part: str) -> Column:
    """The numbers, with what changes nothing where none is present: 0 in a sum, the far end in an extreme."""
    values, present = numbers.values, numbers.present
    if present is None:
        return values
    if part not in {"min", "max", "last_at"}:
        return np.where(present, values, 0)
    if values.dtype == np.float64:
        return np.where(present, values, np.inf if part == "min" else -np.inf)
    return np.where(present, values, _ENDS.max if part == "min" else _ENDS.min)


def _us(moments: pa.ChunkedArray) -> Ints:
    """Moments as int64 microseconds since 1970."""
    us: Ints = moments.cast(MOMENT).cast(pa.int64()).to_numpy()
    return us
