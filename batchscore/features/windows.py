"""Windows: the rollup rows of one key range become the value of each feature over events, as of any moment.

An event counts for as-of T when ``T − window <= event_at < T`` and ``known_at < T``; without a window all history counts. T
and windows are whole grains, so whole rollup rows are in or out and this is exact. Merged sums are int64; a mean is
computed once, from the merged sum.

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
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchscore.errors import PartitionError
from batchscore.features.feature_set import FeatureSet, OverEvents
from batchscore.keys import ACCOUNT_ID, positions

_US_A_DAY: Final = 86_400_000_000
_EXACT: Final = float(1 << 62)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Distinct:
    """Hashes of one column, flattened: ``row`` says whose rollup row each belongs to."""

    row: Ints
    hashes: npt.NDArray[np.uint64]
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The rollup rows of a key range in the order of its accounts; made once, asked for many as-ofs.

    ``position``: int64, which account (ascending). ``event``, ``known``: int32 grains. ``columns``: measures by name.
    """

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

    Raises:
        PartitionError: ``sum_overflow``: merged sums could leave the exact integers.
    """
    position = positions(rollup[ACCOUNT_ID].combine_chunks(), ids)
    known_account = position >= 0
    n_orphans = int(rollup["n"].to_numpy()[~known_account].sum())
    if n_orphans or not known_account.all():
        rollup = rollup.filter(pa.array(known_account))
        position = position[known_account]
    columns: dict[str, Column] = {"n": rollup["n"].to_numpy(), "last_at": rollup["last_at"].cast(pa.int64()).to_numpy()}
    distinct = {}
    for column, aggregate in feature_set.measures(table):
        name = f"{column}__{aggregate}"
        if aggregate == "distinct":
            distinct[column] = _flatten(rollup[name].combine_chunks(), feature_set.events_table(table).distinct_limit)
            continue
        columns[f"{column}__valid"] = rollup[f"{column}__valid"].to_numpy()
        columns[name] = _filled(rollup[name], aggregate)
        if aggregate == "sum" and float(np.abs(columns[name].astype(np.float64)).sum()) >= _EXACT:
            raise PartitionError(
                "sum_overflow",
                "a sum leaves the integers that are exact",
                where=f"{table}.{column}",
                remedy="store a larger unit",
            )
    return Prepared(
        n_accounts=len(ids),
        grain=feature_set.grain,
        position=position,
        event=rollup["event_grain"].to_numpy(),
        known=rollup["known_grain"].to_numpy(),
        columns=columns,
        distinct=distinct,
        n_orphans=n_orphans,
    )


def over_events(prepared: Prepared, definition: OverEvents, as_of: datetime) -> Column:  # noqa: PLR0911 (a case, a return)
    """The value of one feature for each account, shape (n_accounts,); see the table above."""
    window = _Window(prepared, as_of, definition.window)
    column = definition.column
    match definition.aggregate:
        case "count":
            return window.summed("n")
        case "sum":
            return window.summed(f"{column}__sum")
        case "mean":
            valid = window.summed(f"{column}__valid")
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.where(valid > 0, window.summed(f"{column}__sum") / valid, np.nan)
        case "min" | "max":
            return window.extreme(f"{column}__{definition.aggregate}", f"{column}__valid", largest=definition.aggregate == "max")
        case "days_active":
            return window.active_grains()
        case "time_since":
            return window.days_since(as_of)
        case "distinct":
            assert column is not None
            return window.distinct(prepared.distinct[column])


class _Window:
    """The rows of one window, and where each account's begin among them."""

    def __init__(self, prepared: Prepared, as_of: datetime, window: timedelta | None) -> None:
        end = (as_of - _EPOCH) // prepared.grain
        inside = (prepared.event < end) & (prepared.known < end)
        if window is not None:
            inside &= prepared.event >= end - window // prepared.grain
        self._prepared = prepared
        self._inside = inside
        self._rows = np.flatnonzero(inside)
        owner = prepared.position[self._rows]
        self._starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]])) if len(owner) else np.empty(0, np.int64)
        self._owners = owner[self._starts]
        self._owner = owner

    def _spread(self, values: Column, empty: float, dtype: type) -> Column:
        """Values of the accounts that have rows here, among all accounts."""
        result: Column = np.full(self._prepared.n_accounts, empty, dtype)
        result[self._owners] = values
        return result

    def _reduce(self, function: np.ufunc, values: Column) -> Column:
        return function.reduceat(values, self._starts) if len(self._starts) else values[:0]

    def summed(self, name: str) -> Ints:
        return self._spread(self._reduce(np.add, self._prepared.columns[name][self._rows]), 0, np.int64)

    def extreme(self, name: str, valid: str, *, largest: bool) -> Column:
        present = self.summed(valid) > 0
        found = self._reduce(np.maximum if largest else np.minimum, self._prepared.columns[name][self._rows])
        return np.where(present, self._spread(found, np.nan, np.float64), np.nan)

    def active_grains(self) -> Ints:
        grains = self._prepared.event[self._rows].astype(np.int64)
        order = np.lexsort((grains, self._owner))
        owner, grains = self._owner[order], grains[order]
        first = (
            np.concatenate([[True], (owner[1:] != owner[:-1]) | (grains[1:] != grains[:-1])]) if len(owner) else np.empty(0, bool)
        )
        return np.bincount(owner[first], minlength=self._prepared.n_accounts).astype(np.int64)

    def days_since(self, as_of: datetime) -> Column:
        last = self._reduce(np.maximum, self._prepared.columns["last_at"][self._rows])
        moment = (as_of - _EPOCH) // timedelta(microseconds=1)
        return self._spread((moment - last) / _US_A_DAY, np.nan, np.float64)

    def distinct(self, of: _Distinct) -> Column:
        chosen = self._inside[of.row]
        owner, hashes = self._prepared.position[of.row[chosen]], of.hashes[chosen]
        order = np.lexsort((hashes, owner))
        owner, hashes = owner[order], hashes[order]
        if len(owner):
            first = np.concatenate([[True], (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1])])
            owner, hashes = owner[first], hashes[first]
        n = np.bincount(owner, minlength=self._prepared.n_accounts)
        estimated: Column = n.astype(np.float64)
        ends = np.cumsum(n)
        for account in np.flatnonzero(n > of.limit):  # rare: an account beyond the exact limit
            kth = hashes[ends[account] - n[account] + of.limit]
            estimated[account] = of.limit / (float(kth) / 2.0**64)
        return estimated


def _flatten(lists: pa.ListArray, limit: int) -> _Distinct:
    offsets = lists.offsets.to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(lists)), np.diff(offsets))
    return _Distinct(row, lists.values.to_numpy()[offsets[0] : offsets[-1]] if len(lists) else np.empty(0, np.uint64), limit)


def _filled(values: pa.ChunkedArray, aggregate: str) -> Column:
    """A measure as numpy; rows without a value get what changes nothing: 0 in a sum, ∓inf in an extreme (as float64)."""
    if aggregate == "sum":
        summed: Column = values.fill_null(0).to_numpy()
        return summed
    neutral = np.inf if aggregate == "min" else -np.inf
    extreme: Column = values.cast(pa.float64(), safe=False).fill_null(neutral).to_numpy()
    return extreme
