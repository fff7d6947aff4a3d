"""The ranges by which a table of MySQL is read: their bounds are looked for along its key, each with one query.

A range is (low, high]; a bound is a key of the table as `mysql_key` writes it. Nothing is counted over the whole table.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Lock
from typing import Any, Final

import sqlalchemy as sa

from batchscore.database import execute_text, quoted, read
from batchscore.plan import KeyBound
from batchscore.sources.mysql_key import PagingKey, as_bound
from batchscore.spec import SqlSource

RANGE_ROWS: Final = 200_000  # of one freeze partition, about; what a lost attempt reads again
_CELLS: Final = 8  # to a range: what is walked at a time where ranges may lie anywhere


def balanced_ranges(engine: sa.Engine, source: SqlSource, key: PagingKey, *, at_a_time: int) -> list[KeyBound | None]:
    """The bounds of ranges (low, high] of a unique key up to its largest now, of about `RANGE_ROWS` rows each; None of no rows.

    No range has twice the rows of another. Two walks, each on a core of its own, go in cells of a part of a range; then at least
    four cells are put together. Sparse or skewed keys, one column or several, in any collation, are the same to it. Rows are not
    counted again, nor anything over the whole table.

    ``at_a_time``: how many ranges are read beside each other. Theirs is a multiple of it, where that leaves each at least half
    as large: a last one that is read alone leaves a core idle.
    """
    walk = _Walk(engine, source, key)
    high = walk.largest(None)
    if high is None:
        return [None]
    cells = _cells(walk, high, max(1, RANGE_ROWS // _CELLS))
    n_cells = len(cells) - 1
    n_ranges = max(1, (n_cells + 1) // _CELLS)
    together = -(-n_ranges // at_a_time) * at_a_time
    if n_cells // together >= _CELLS // 2:
        n_ranges = together
    return [cells[number * n_cells // n_ranges] for number in range(n_ranges + 1)]


def _cells(walk: _Walk, high: KeyBound, n_rows: int) -> list[KeyBound | None]:
    """The bounds of cells (low, high] of ``n_rows`` rows each, but that one may have fewer and one up to twice as many."""
    low = walk.up(None, 1) if isinstance(high, int) else None
    with ThreadPoolExecutor(1) as other:
        if isinstance(low, int) and isinstance(high, int):
            # InnoDB goes up in two thirds of the time of going down. A key in the middle parts whole numbers; where it leaves all
            # rows on one side, one walk goes alone.
            middle = (low + high) // 2
            above = other.submit(lambda: list(walk.ups(middle, high, n_rows)))
            return [None, *walk.ups(None, middle + 1, n_rows), *above.result(), high]
        return _from_both_ends(walk, high, n_rows, other)


def _from_both_ends(walk: _Walk, high: KeyBound, n_rows: int, other: Executor) -> list[KeyBound | None]:
    """As `_cells`: walks go towards each other until they meet, which the server is asked, whose order it is."""
    lower: list[KeyBound | None] = [None]
    upper: list[KeyBound] = [high]
    turn = Lock()  # of looking whether they have met, and going on

    def rise() -> None:
        while (above := walk.up(lower[-1], n_rows)) is not None:
            with turn:
                if not walk.holds_any(above, upper[-1]):
                    return
                lower.append(above)

    def fall() -> None:
        while (below := walk.down(upper[-1], n_rows)) is not None:
            with turn:
                if not walk.holds_any(lower[-1], below):
                    return
                upper.append(below)

    falling = other.submit(fall)
    rise()
    falling.result()
    return [*lower, *reversed(upper)]  # the cell where they met has fewer rows than the others


def ranges_from_below(engine: sa.Engine, source: SqlSource, key: PagingKey, low: KeyBound | None) -> list[KeyBound | None]:
    """The bounds of ranges above ``low`` of `RANGE_ROWS` rows each, but the last; only ``low`` where nothing is above it.

    What a later call finds begins with the same bounds, but for the last, as long as rows come above the largest key. The last
    has half to one and a half of the rows of another, or all there are. Of a key that is not unique, rows that are equal in it
    stay together.
    """
    walk = _Walk(engine, source, key)
    high = walk.largest(low)
    if high is None:
        return [low]
    bounds = [low, *walk.ups(low, high, RANGE_ROWS)]
    if len(bounds) > 1 and not walk.holds(bounds[-1], high, max(1, RANGE_ROWS // 2)):
        bounds.pop()
    return [*bounds, high]


class _Walk:
    """Looks for bounds along a table's key, each with one query."""

    def __init__(self, engine: sa.Engine, source: SqlSource, key: PagingKey) -> None:
        self._engine, self._key, self._where = engine, key, f"table {source.table}"
        self._from = f"FROM {quoted(engine, source.table)} WHERE"
        self._select = f"SELECT {', '.join(key.asked)} {self._from}"
        self._falling = ", ".join(f"{name} DESC" for name in key.quoted)

    def largest(self, low: KeyBound | None) -> KeyBound | None:
        """The largest key above ``low``."""
        above = self._key.after(None if low is None else as_bound(low))
        return self._found(f"{self._select} {above} ORDER BY {self._falling} LIMIT 1")

    def up(self, low: KeyBound | None, n_rows: int) -> KeyBound | None:
        """The key that lies ``n_rows`` above ``low``; None when fewer are there. It may lie above the largest of a moment ago."""
        above = self._key.after(None if low is None else as_bound(low))
        return self._found(f"{self._select} {above} ORDER BY {self._key.order} LIMIT 1 OFFSET {n_rows - 1}")

    def ups(self, low: KeyBound | None, high: KeyBound, n_rows: int) -> Iterator[KeyBound]:
        """Keys that lie ``n_rows`` above one another, from ``low`` on, as long as they are below ``high``."""
        at = low
        while (at := self.up(at, n_rows)) is not None and self.holds_any(at, high):
            yield at

    def down(self, high: KeyBound, n_rows: int) -> KeyBound | None:
        """The key that ``n_rows`` of those up to ``high`` lie above; None when fewer are there."""
        up_to = self._key.between(None, as_bound(high))
        return self._found(f"{self._select} {up_to} ORDER BY {self._falling} LIMIT 1 OFFSET {n_rows}")

    def holds_any(self, low: KeyBound | None, high: KeyBound) -> bool:
        """Whether a key is in (low, high]. Of whole numbers that were keys the server need not be asked."""
        if isinstance(low, int) and isinstance(high, int):
            return low < high
        return self.holds(low, high, 1)

    def holds(self, low: KeyBound | None, high: KeyBound, n_rows: int) -> bool:
        """Whether so many rows are in (low, high]."""
        between = self._key.between(None if low is None else as_bound(low), as_bound(high))
        return self._found(f"SELECT 1 {self._from} {between} ORDER BY {self._key.order} LIMIT 1 OFFSET {n_rows - 1}") is not None

    def _found(self, query: str) -> KeyBound | None:
        return _bound(read(self._engine, lambda connection: execute_text(connection, query).first(), where=self._where))


def _bound(row: Any) -> KeyBound | None:
    if row is None:
        return None
    return row[0] if len(row) == 1 else tuple(row)
