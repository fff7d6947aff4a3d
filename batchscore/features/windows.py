"""Windows: the rollup rows of one key range become the value of each feature over events, as of any moment.

An event counts for as-of T when ``T − window <= event_at < T`` and ``known_at < T``; without a window all history counts. T
and windows are whole grains, so whole rollup rows are in or out and this is exact. Merged sums are int64; a mean is
computed once, from the merged sum. Rows are put in order once, in `prepare`; a window of an as-of is then a mask over them,
shared by all features of that window.

| aggregate | value | of an empty window |
|---|---|---|
| count | events, int64 | 0 |
| sum | sum of the values present, int64 | 0 |
| distinct | different values present, float64: exact up to the table's ``distinct_limit`` K, else estimated (below) | 0 |
| days_active | grains with at least one event, int64 | 0 |
| min, max | of the values present, float64 | missing |
| mean | sum / values present, float64 | missing |
| time_since | days from the last event to T, float64 | missing |

Beyond K values ``distinct`` is K / (the K+1st smallest 64-bit hash / 2^64): the bottom-k estimate of Beyer et al. (2007), with a
relative standard error of about 1/√(K−1). Missing is NaN. A null in a measured column counts as an event, and as no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.features.exact import Column, Ints, reduced, run_starts, summed
from batchscore.features.feature_set import FeatureSet, OverEvents
from batchscore.features.rollup import flattened
from batchscore.keys import ACCOUNT_ID, positions

_US_A_DAY: Final = 86_400_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class _Distinct:
    """Hashes of one column, flattened, by account and then ascending: entry i is of rollup row ``row[i]``."""

    row: Ints
    hashes: npt.NDArray[np.uint64]
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The rollup rows of a key range by account and event grain; made once, asked for many as-ofs.

    ``position``: int64, which account (ascending). ``event``, ``known``: int32 grains. ``columns``: measures by name.
    """

    table: str
    n_accounts: int
    grain: timedelta
    position: Ints
    event: npt.NDArray[np.int32]
    known: npt.NDArray[np.int32]
    columns: dict[str, Column]
    distinct: dict[str, _Distinct]
    n_orphans: int


def prepare(ids: pa.Array, rollup: pa.Table, feature_set: FeatureSet, table: str) -> Prepared:
    """Bring a key range's rollup rows (sorted by account id) beside its accounts ``ids`` (sorted, distinct).

    Events of accounts that are not among ``ids`` are counted as ``n_orphans`` and left out.
    """
    position = positions(rollup[ACCOUNT_ID].combine_chunks(), ids)
    is_known = position >= 0
    n_orphans = int(rollup["n"].to_numpy()[~is_known].sum())
    if not is_known.all():
        rollup = rollup.filter(pa.array(is_known))
        position = position[is_known]
    event = rollup["event_grain"].to_numpy()
    order = _by_account_and_grain(position, event)
    columns: dict[str, Column] = {"n": rollup["n"].to_numpy(), "last_at": rollup["last_at"].cast(pa.int64()).to_numpy()}
    distinct = {}
    for column, aggregate in feature_set.measures(table):
        name = f"{column}__{aggregate}"
        if aggregate == "distinct":
            limit = feature_set.events_table(table).distinct_limit
            distinct[column] = _sorted_hashes(rollup[name].combine_chunks(), position, order, limit)
        else:
            columns[f"{column}__valid"] = rollup[f"{column}__valid"].to_numpy()
            columns[name] = _filled(rollup[name], aggregate)
    return Prepared(
        table=table,
        n_accounts=len(ids),
        grain=feature_set.grain,
        position=position[order],
        event=event[order],
        known=rollup["known_grain"].to_numpy()[order],
        columns={name: values[order] for name, values in columns.items()},
        distinct=distinct,
        n_orphans=n_orphans,
    )


class Window:
    """The rows of one window of one as-of, and where each account's begin among them. ``length`` None: all history."""

    def __init__(self, prepared: Prepared, as_of: datetime, length: timedelta | None) -> None:
        end, beyond = divmod(as_of - _EPOCH, prepared.grain)
        assert not beyond, "an as-of is a whole number of grains: planning refuses others"
        inside = (prepared.event < end) & (prepared.known < end)
        if length is not None:
            inside &= prepared.event >= end - length // prepared.grain
        self._prepared = prepared
        self._as_of = as_of
        self._inside = inside
        self._rows = np.flatnonzero(inside)
        self._owner = prepared.position[self._rows]
        self._starts = run_starts(self._owner)
        self._owners = self._owner[self._starts]

    def feature(self, definition: OverEvents) -> Column:  # noqa: PLR0911 (a case, a return)
        """The value of one feature of this window for each account, shape (n_accounts,); see the table above.

        Raises:
            PartitionError: ``sum_overflow``.
        """
        column = definition.column
        match definition.aggregate:
            case "count":
                return self._summed("n")
            case "sum":
                return self._summed(f"{column}__sum")
            case "mean":
                valid = self._summed(f"{column}__valid")
                with np.errstate(invalid="ignore", divide="ignore"):
                    return np.where(valid > 0, self._summed(f"{column}__sum") / valid, np.nan)
            case "min" | "max":
                return self._extreme(f"{column}__{definition.aggregate}", f"{column}__valid", definition.aggregate == "max")
            case "days_active":
                return self._active_grains()
            case "time_since":
                return self._days_since_last()
            case "distinct":
                assert column is not None
                return self._distinct(self._prepared.distinct[column])

    def _spread(self, values: Column, empty: float, dtype: type) -> Column:
        """Values of the accounts that have rows here, among all accounts."""
        result: Column = np.full(self._prepared.n_accounts, empty, dtype)
        result[self._owners] = values
        return result

    def _summed(self, name: str) -> Ints:
        where = f"{self._prepared.table}.{name.rpartition('__')[0] or name}"
        return self._spread(summed(self._prepared.columns[name][self._rows], self._starts, where), 0, np.int64)

    def _extreme(self, name: str, valid: str, largest: bool) -> Column:  # noqa: FBT001
        found = reduced(np.maximum if largest else np.minimum, self._prepared.columns[name][self._rows], self._starts)
        return np.where(self._summed(valid) > 0, self._spread(found, np.nan, np.float64), np.nan)

    def _active_grains(self) -> Ints:
        grains = run_starts(self._owner, self._prepared.event[self._rows])
        return np.bincount(self._owner[grains], minlength=self._prepared.n_accounts).astype(np.int64)

    def _days_since_last(self) -> Column:
        last = reduced(np.maximum, self._prepared.columns["last_at"][self._rows], self._starts)
        moment = (self._as_of - _EPOCH) // timedelta(microseconds=1)
        return self._spread((moment - last) / _US_A_DAY, np.nan, np.float64)

    def _distinct(self, of: _Distinct) -> Column:
        entries = of.row[chosen := self._inside[of.row]]
        owner, hashes = self._prepared.position[entries], of.hashes[chosen]
        first = run_starts(owner, hashes)
        owner, hashes = owner[first], hashes[first]
        n = np.bincount(owner, minlength=self._prepared.n_accounts)
        values: Column = n.astype(np.float64)
        beyond = np.flatnonzero(n > of.limit)
        next_smallest = hashes[(np.cumsum(n) - n)[beyond] + of.limit]
        values[beyond] = of.limit / (next_smallest.astype(np.float64) / 2.0**64)
        return values


def _by_account_and_grain(position: Ints, event: npt.NDArray[np.int32]) -> Ints | slice:
    """The order of rows by both; they are in it already when they come from one file."""
    same, later = position[1:] == position[:-1], event[1:] >= event[:-1]
    return slice(None) if (later | ~same).all() else np.lexsort((event, position))


def _sorted_hashes(lists: pa.ListArray, position: Ints, order: Ints | slice, limit: int) -> _Distinct:
    """The lists of rows that will stand in ``order``, flattened by account and hash, so that equal hashes stand together."""
    row, hashes = flattened(lists)
    entries = np.lexsort((hashes, position[row]))
    placed = np.empty(len(position), np.int64)
    placed[order] = np.arange(len(position))
    return _Distinct(placed[row[entries]], hashes[entries], limit)


def _filled(values: pa.ChunkedArray, aggregate: str) -> Column:
    """A measure as numpy; rows without a value get what changes nothing: 0 in a sum, ∓inf in an extreme (as float64)."""
    if aggregate == "sum":
        whole: Column = values.fill_null(0).to_numpy()
        return whole
    neutral = np.inf if aggregate == "min" else -np.inf
    extreme: Column = values.cast(pa.float64(), safe=False).fill_null(neutral).to_numpy()
    return extreme
