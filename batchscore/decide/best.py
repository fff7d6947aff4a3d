"""The best K of all scores, exactly, whatever their order and cut. Pure; memory holds the best so far and the newest tables.

Order: the score, high first, then the account id, low first (bytes for text, unsigned for integers). Ids are distinct, so the
order is total and the result is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MIN_WAITING = 65_536  # rows gathered before they are ranked against the best so far; tests make it smaller
BEST_FIRST: Final = [("score", "descending"), ("account_id", "ascending")]
SCORED: Final = ("account_id", "score", "margin")

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """``table``: the best of the scores at or above the floor, best first. ``n_above``: how many of all scores are there."""

    table: pa.Table
    n_above: int

    @property
    def is_all(self) -> bool:
        """Whether no score at or above the floor is missing."""
        return len(self.table) == self.n_above


Rest = Callable[[pa.Table, Places], None]
"""Is told of a table, and of the places in it of rows that may yet be among the best; all its others are not."""


def best_of(scores: Iterable[pa.Table], most: int | None, floor: float, id_type: pa.DataType, rest: Rest | None = None) -> Best:
    """The best ``most`` (None: all) of the scores at or above ``floor``, compared as float64, which is exact.

    Args:
        scores: account_id (``id_type``), score and margin (float32 or float64). A NaN or null score is nowhere.
        most: At most so many are kept; one or more.
        floor: The least that a score must be.
        id_type: uint64 or string.
        rest: Is given every row that is not among the best, once, a table at a time; so one pass over the scores serves both.

    Raises:
        TypeError: ids are of another type.
    """
    held = _Held(most, floor, id_type, rest)
    for table in scores:
        held.offer(table.select(SCORED))
    return Best(table=held.ranked(), n_above=held.n_above)


def widened(table: pa.Table) -> npt.NDArray[np.float64]:
    """Scores as float64 (n,), which is exact; null is NaN, and NaN is at or above nothing."""
    scores: npt.NDArray[np.float64] = table["score"].to_numpy().astype(np.float64, copy=False)
    return scores


def at_least(scores: npt.NDArray[np.floating[Any]], floor: float) -> npt.NDArray[np.bool_]:
    """Where scores are at or above ``floor``, as float64 would compare them, without widening float32: NaN nowhere.

    The least float32 at or above the floor parts them alike.
    """
    if scores.dtype != np.float32:
        return scores.astype(np.float64, copy=False) >= floor
    with np.errstate(over="ignore", under="ignore"):
        least = np.float32(floor)
        if float(least) < floor:
            least = np.nextafter(least, np.float32(np.inf))
    return scores >= least


class _Held:
    """The best so far, and tables that wait to be ranked against them."""

    def __init__(self, most: int | None, floor: float, id_type: pa.DataType, rest: Rest | None) -> None:
        self.n_above = 0
        self._most = most
        self._least = self._floor = floor
        self._id_type = id_type
        self._rest = rest
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self._enough = np.inf if most is None else most + MIN_WAITING  # without a bound all are kept

    def offer(self, table: pa.Table) -> None:
        """Keep the rows that may still be among the best."""
        if table.schema.field("account_id").type != self._id_type:
            msg = f"account ids are {table.schema.field('account_id').type}, those remembered {self._id_type}"
            raise TypeError(msg)
        scores = table["score"].to_numpy()
        self.n_above += int(np.count_nonzero(at_least(scores, self._least)))
        places = np.flatnonzero(at_least(scores, self._floor))
        above = table if len(places) == len(table) else table.take(places)
        if self._rest is not None and len(places) < len(table):
            self._rest(table, places)
        if len(above) or not self._waiting:  # the first stays for its types
            self._waiting.append(above)
        self._n_waiting += len(above)
        if self._n_waiting >= self._enough:
            self._keep_best()

    def ranked(self) -> pa.Table:
        """The best, best first."""
        if not self._waiting:
            nothing = pa.schema([("account_id", self._id_type), ("score", pa.float32()), ("margin", pa.float32())])
            return nothing.empty_table()
        self._keep_best()
        return self._waiting[0].sort_by(BEST_FIRST).combine_chunks()

    def _keep_best(self) -> None:
        """Bring what waits down to the best, in any order; the least score of them is the new floor."""
        found = pa.concat_tables(self._waiting).combine_chunks()
        if self._most is not None and self._n_waiting >= self._most:
            scores = widened(found)
            line = float(np.partition(scores, -self._most)[-self._most])
            places = self._best_places(found, scores, line)
            found = self._without(found, places)
            self._floor = line
        self._waiting, self._n_waiting = [found], len(found)

    def _best_places(self, found: pa.Table, scores: npt.NDArray[np.float64], line: float) -> Places:
        """Of the ``most`` best, of which the last has the score ``line``; of those that have it, the lowest ids."""
        is_best, level = scores > line, np.flatnonzero(scores == line)
        order = pc.sort_indices(found["account_id"].take(level)).to_numpy()
        assert self._most is not None
        is_best[level[order[: self._most - np.count_nonzero(is_best)]]] = True
        return np.flatnonzero(is_best)

    def _without(self, found: pa.Table, places: Places) -> pa.Table:
        """The rows at those places; the others are told of."""
        if len(places) == len(found):
            return found
        if self._rest is not None:
            self._rest(found, places)
        return found.take(places).combine_chunks()
