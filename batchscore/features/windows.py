"""Windows: the rollup rows of one key range become the value of each feature over events, as of many moments in one pass.

An event counts for as-of T when ``T − window <= event_at < T``, ``known_at < T`` and it passes the feature's filter; without a
window all history counts. T and windows are whole grains, so whole rollup rows are in or out and this is exact.

| aggregate | value | of an empty window |
|---|---|---|
| count | events, int64 | 0 |
| sum | sum of the values present, int64; of decimals float64, divided once | 0 |
| distinct | different values present, float64: exact up to the table's ``distinct_limit`` K, else estimated (below) | 0 |
| days_active | days (UTC) with at least one event, int64 | 0 |
| min, max | of the values present, float64 | missing |
| mean | sum / values present, float64 | missing |
| std | √(mean of squares − square of the mean) of the values present, float64; of one value 0 | missing |
| first, last | the value present of the earliest, latest event (below), float64 | missing |
| top_share | events with the commonest value / values present, float64; beyond K different values missing | missing |
| time_since | days from the last event to T, float64 | missing |

Missing is NaN. A null in a measured column counts as an event, and as no value; NaN is a null. Events are counted each, also
equal ones. Events of one moment are ordered by ``known_at``, then by the table's ``tie`` column, then by the value itself. Merged
sums are exact integers; a mean and a deviation are rounded once, from them.

Beyond K values ``distinct`` is K / (the K+1st smallest 64-bit hash / 2^64): the bottom-k estimate of Beyer et al. (2007), with a
relative standard error of about 1/√(K−1). A top_share beyond K is missing rather than guessed: the commonest value need not
be among the K kept. (Up to K, two values whose 64-bit hashes agree count as one: one chance in 10^14 at K = 256.)

A rollup row counts for the as-ofs of one unbroken stretch: from the first after it happened and was known, to the last whose
window still reaches it. Sums add a row where its stretch begins and take it away where it ends; extremes lay it over its
stretch by two powers of two (a sparse table, filled from above); values are counted up and down. So a pass costs rows plus
accounts × as-ofs, whatever the length of the windows; of one as-of alone each account's rows are simply reduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.features.definitions import DAY, EPOCH, OverEvents
from batchscore.features.exact import (
    Column,
    Floats,
    Ints,
    carried,
    deviation,
    halves,
    is_exact,
    may_wrap,
    overflow,
)
from batchscore.features.feature_set import FeatureSet
from batchscore.features.partials import Partial
from batchscore.features.rollup import ends_of, flattened, whole
from batchscore.features.rollup_columns import EVENTS
from batchscore.features.stretches import Pairs, Stretches
from batchscore.keys import ACCOUNT_ID, positions
from batchscore.where import Where

_US_A_DAY: Final = 86_400_000_000
_NEVER: Final = np.iinfo(np.int64).min
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Hashed:
    """Hashes of one partial, flattened, by account and then ascending: entry i is of rollup row ``row[i]``.

    ``counts``: how often the value stands in the row, for a top share.
    """

    row: Ints
    hashes: Words
    counts: Ints | None
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """First or last values in the order of their moments: row i has the ``rank[i]``-th of ``values``; −1 has none."""

    rank: Ints
    values: Column


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The rollup rows of a key range by account and event grain; made once, asked for any as-ofs.

    ``position``: int64, which account (ascending). ``event``, ``known``: int32 grains. ``columns``: numbers by name, ``ranked``
    and ``hashed``: first and last values, hashes. ``scales``: 10^digits of the columns that are decimals.
    """

    table: str
    n_accounts: int
    grain: timedelta
    position: Ints
    event: npt.NDArray[np.int32]
    known: npt.NDArray[np.int32]
    columns: dict[str, Column]
    ranked: dict[str, _Ranked]
    hashed: dict[str, _Hashed]
    scales: dict[str, float]
    n_orphans: int

    def scale(self, column: str | None) -> float:
        """What whole numbers of the column's last digit are to be divided by."""
        return self.scales.get(column or "", 1.0)


def prepare(
    ids: pa.Array, rollup: pa.Table, feature_set: FeatureSet, table: str, span: tuple[datetime, datetime] | None = None
) -> Prepared:
    """Bring a key range's rollup rows (sorted by account id) beside its accounts ``ids`` (sorted, distinct).

    Events of accounts that are not among ``ids`` are counted as ``n_orphans`` and left out. ``span`` is the first and last
    as-of that will be asked for: hashes that no window of them reaches are left out; None keeps all.
    """
    position = positions(rollup[ACCOUNT_ID].combine_chunks(), ids)
    is_known = position >= 0
    n_orphans = int(rollup["n"].to_numpy()[~is_known].sum())
    if not is_known.all():
        rollup = rollup.filter(pa.array(is_known))
        position = position[is_known]
    event = rollup["event_grain"].to_numpy()
    order = _by_account_and_grain(position, event)
    columns: dict[str, Column] = {}
    ranked, hashed, scales = {}, {}, {}
    for partial in {*EVENTS, *feature_set.partials(table)}:
        kind = rollup.schema.field(partial.name).type
        if pa.types.is_decimal(kind):
            scales[str(partial.column)] = 10.0**kind.scale
        if partial.part in {"distinct", "top"}:
            limit = feature_set.events_table(table).distinct_limit
            reached = _reached(rollup, span, feature_set.reach(table, partial), feature_set.grain)
            hashed[partial.name] = _sorted_hashes(rollup, partial, (position, order, reached), limit)
        elif partial.part in {"first", "last"}:
            ranked[partial.name] = _by_moment(rollup, partial, order)
        else:
            columns[partial.name] = whole(rollup[partial.name], partial.name)[order]
            if partial.part == "square":
                columns[partial.beside("_low")] = rollup[partial.beside("_low")].to_numpy()[order]
    return Prepared(
        table=table,
        n_accounts=len(ids),
        grain=feature_set.grain,
        position=position[order],
        event=event[order],
        known=rollup["known_grain"].to_numpy()[order],
        columns=columns,
        ranked=ranked,
        hashed=hashed,
        scales=scales,
        n_orphans=n_orphans,
    )


class Window:
    """One window at several as-ofs (ascending): which rows it holds, from which as-of to which. ``length`` None: all history."""

    def __init__(self, prepared: Prepared, as_ofs: Sequence[datetime], length: timedelta | None) -> None:
        ends = np.array([(as_of - EPOCH) // prepared.grain for as_of in as_ofs], np.int64)
        assert not any((as_of - EPOCH) % prepared.grain for as_of in as_ofs), (
            "an as-of is a whole number of grains: planning refuses others"
        )
        assert (np.diff(ends) > 0).all(), "as-ofs ascend"
        begin = np.searchsorted(ends, np.maximum(prepared.event, prepared.known), side="right")
        if length is None:
            stop = np.full(len(begin), len(ends))
        else:
            stop = np.searchsorted(ends, prepared.event + np.int64(length // prepared.grain), side="right")
        self._prepared = prepared
        self._as_ofs = as_ofs
        self._shape = len(as_ofs), prepared.n_accounts
        self._begin, self._stop = begin, stop
        self._inside = begin < stop
        self._rows = self._stretches(np.flatnonzero(self._inside))

    def feature(self, definition: OverEvents) -> Column:  # noqa: C901, PLR0911 (a case, a return)
        """The value of one feature of this window, (n_as_ofs, n_accounts); see the table above.

        Raises:
            PartitionError: ``sum_overflow``.
        """
        column, where = definition.column, definition.where
        match definition.aggregate:
            case "count":
                return self._summed(Partial(None, "n", where))
            case "sum":
                return self._total(column, where)
            case "mean":
                return self._mean(column, where)
            case "std":
                return self._deviation(column, where)
            case "min" | "max":
                return self._extreme(Partial(column, definition.aggregate, where))
            case "first" | "last":
                return self._end(Partial(column, definition.aggregate, where))
            case "days_active":
                return self._active_days(where)
            case "time_since":
                return self._days_since_last(where)
            case "distinct":
                return self._distinct(Partial(column, "distinct", where))
            case "top_share":
                return self._top_share(Partial(column, "top", where))

    def _summed(self, partial: Partial) -> Ints:
        values = self._prepared.columns[partial.name][self._rows.row]
        if may_wrap(values) and not is_exact(*map(self._rows.added, halves(values))):
            raise overflow(self._where(partial))
        return self._rows.added(values)

    def _where(self, partial: Partial) -> str:
        return f"{self._prepared.table}.{partial.column or 'n'}"

    def _total(self, column: str | None, where: Where) -> Column:
        sums, scale = self._summed(Partial(column, "sum", where)), self._prepared.scale(column)
        return sums if column not in self._prepared.scales else sums / scale

    def _mean(self, column: str | None, where: Where) -> Floats:
        sums, n = (self._summed(Partial(column, part, where)) for part in ("sum", "valid"))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n > 0, sums / (n * self._prepared.scale(column)), np.nan)

    def _deviation(self, column: str | None, where: Where) -> Floats:
        square = Partial(column, "square", where)
        sums, n = (self._summed(Partial(column, part, where)) for part in ("sum", "valid"))
        high = self._summed(square)
        low = self._rows.added(self._prepared.columns[square.beside("_low")][self._rows.row])
        return deviation(n, sums, *carried(high, low, self._where(square))) / self._prepared.scale(column)

    def _extreme(self, partial: Partial) -> Floats:
        n = self._summed(partial.valid)
        rows = self._rows.among(self._prepared.columns[partial.valid.name] > 0)
        values = self._prepared.columns[partial.name][rows.row].astype(np.float64)
        found = rows.largest(values, -np.inf) if partial.part == "max" else -rows.largest(-values, -np.inf)
        return np.where(n > 0, found / self._prepared.scale(partial.column), np.nan)

    def _end(self, partial: Partial) -> Floats:
        ranked = self._prepared.ranked[partial.name]
        rows = self._rows.among(ranked.rank >= 0)
        rank, values = ranked.rank[rows.row], ranked.values
        if partial.part == "first":
            rank, values = len(values) - 1 - rank, values[::-1]
        held = np.append(values.astype(np.float64) / self._prepared.scale(partial.column), np.nan)
        found: Floats = held[rows.largest(rank, -1)]
        return found

    def _active_days(self, where: Where) -> Ints:
        rows = self._rows.among(self._prepared.columns[Partial(None, "n", where).name] > 0)
        days = self._prepared.event[rows.row] // np.int32(DAY // self._prepared.grain)
        return np.stack(list(Pairs(rows, days, np.ones(len(days), np.int64)).steps()))

    def _days_since_last(self, where: Where) -> Floats:
        rows = self._rows.among(self._prepared.columns[Partial(None, "n", where).name] > 0)
        last = rows.largest(self._prepared.columns[Partial(None, "last_at", where).name][rows.row], _NEVER)
        moments = np.array([[(as_of - EPOCH) // timedelta(microseconds=1)] for as_of in self._as_ofs])
        with np.errstate(over="ignore"):
            return np.where(last == _NEVER, np.nan, (moments - last) / _US_A_DAY)

    def _stretches(self, row: Ints) -> Stretches:
        return Stretches(row, self._prepared.position[row], self._begin[row], self._stop[row], self._shape)

    def _entries(self, hashed: _Hashed) -> tuple[Stretches, Ints]:
        chosen = np.flatnonzero(self._inside[hashed.row])
        return self._stretches(hashed.row[chosen]), chosen

    def _distinct(self, partial: Partial) -> Floats:
        hashed = self._prepared.hashed[partial.name]
        entries, chosen = self._entries(hashed)
        pairs = Pairs(entries, hashed.hashes[chosen], np.ones(len(chosen), np.int64))
        values = np.empty(self._shape)
        for value, n in zip(values, pairs.steps(), strict=True):
            value[:] = n
            beyond = np.flatnonzero(n > hashed.limit)
            value[beyond] = hashed.limit / (pairs.smallest_but(hashed.limit, beyond).astype(np.float64) / 2.0**64)
        return values

    def _top_share(self, partial: Partial) -> Floats:
        hashed = self._prepared.hashed[partial.name]
        entries, chosen = self._entries(hashed)
        assert hashed.counts is not None
        pairs = Pairs(entries, hashed.hashes[chosen], hashed.counts[chosen])
        shares = np.full(self._shape, np.nan)
        for share, n, present in zip(shares, pairs.steps(), self._summed(partial.valid), strict=True):
            told = (n > 0) & (n <= hashed.limit)
            share[told] = pairs.most()[told] / present[told]
        return shares


def _by_account_and_grain(position: Ints, event: npt.NDArray[np.int32]) -> Ints | slice:
    """The order of rows by both, equal ones as they came; they are in it already when they come from one file.

    Grains may lie before 1970: a key of both ascends with either sign, as positions are below 2^31 and grains have 32 bits.
    """
    keys = (position << np.int64(32)) + event
    return slice(None) if (keys[1:] >= keys[:-1]).all() else np.argsort(keys, kind="stable")


def _by_account_and_hash(position: Ints, hashes: Words) -> Ints:
    """The order of entries by both; ``position`` ascends already, so a key of it and the hashes' first bits sorts quickly."""
    n_bits = np.uint64(64 - int(position[-1] + 1 if len(position) else 1).bit_length())
    keys = (position.view(np.uint64) << n_bits) | (hashes >> (np.uint64(64) - n_bits))
    order = np.argsort(keys, kind="stable")
    sorted_keys, sorted_hashes = keys[order], hashes[order]
    if ((sorted_keys[1:] == sorted_keys[:-1]) & (sorted_hashes[1:] < sorted_hashes[:-1])).any():  # hashes of one beginning
        return np.lexsort((hashes, position))
    return order


def _by_moment(rollup: pa.Table, partial: Partial, order: Ints | slice) -> _Ranked:
    """First or last values of rows that will stand in ``order``."""
    ends = ends_of(rollup, partial)
    present = np.flatnonzero(ends.present)
    ascending = present[np.lexsort(tuple(key[present] for key in reversed(ends.keys)))]
    rank = np.full(len(rollup), -1, np.int64)
    rank[ascending] = np.arange(len(ascending))
    return _Ranked(rank[order], ends.keys[-1][ascending])


def _reached(rollup: pa.Table, span: tuple[datetime, datetime] | None, reach: timedelta | None, grain: timedelta) -> Mask:
    """Which rows are in a window as long as ``reach`` of some as-of of the span."""
    event, known = rollup["event_grain"].to_numpy(), rollup["known_grain"].to_numpy()
    if span is None:
        return np.ones(len(event), np.bool_)
    first, last = ((as_of - EPOCH) // grain for as_of in span)
    reached: Mask = np.maximum(event, known) < last
    return reached if reach is None else reached & (event >= first - reach // grain)


def _sorted_hashes(rollup: pa.Table, partial: Partial, rows: tuple[Ints, Ints | slice, Mask], limit: int) -> _Hashed:
    """The lists of the rows that are reached and will stand in an order, flattened by account and hash.

    ``rows``: each row's account position, the order, and which are reached.
    """
    position, order, reached = rows
    lists = rollup.select([partial.name] if partial.part == "distinct" else [partial.name, partial.beside("_n")])
    lists = lists if reached.all() else lists.filter(pa.array(reached))
    row, hashes = flattened(lists[partial.name])
    row = np.flatnonzero(reached)[row]
    entries = _by_account_and_hash(position[row], hashes)
    placed = np.empty(len(position), np.int64)
    placed[order] = np.arange(len(position))
    counts = flattened(lists[partial.beside("_n")])[1][entries] if partial.part == "top" else None
    return _Hashed(placed[row[entries]], hashes[entries], counts, limit)
