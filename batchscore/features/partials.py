"""Partials: what a rollup row holds so that features can be made of it. Each merges exactly and in any order.

| part | columns | held |
|---|---|---|
| n | ``n`` | events, int64 |
| last_at | ``last_at`` | the latest event_at, timestamp[us, UTC] |
| valid | ``c__valid`` | values present, int64 |
| sum | ``c__sum`` | int64, or decimal128(19, scale) |
| square | ``c__square``, ``c__square_low`` | the sum of squares q as q // 2^32 and q mod 2^32, int64 |
| min, max | ``c__min``, ``c__max`` | int64, decimal128(19, scale) or float64 |
| first, last | ``c__first``, ``…_at``, ``…_known``, ``…_tie`` | a value, and what orders it |
| distinct | ``c__distinct`` | list of uint64, ascending: the K + 1 smallest hashes of the values |
| top | ``c__top``, ``c__top_n`` | the same, and how often each value stands: list of int64 |

With a filter, the name ends in ``?`` and 12 hex of the filter's digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from batchscore.features.definitions import OverEvents
from batchscore.where import Where, digest_of_where

Part = Literal["n", "last_at", "valid", "sum", "square", "min", "max", "first", "last", "distinct", "top"]
_PARTS_OF: Final[dict[str, tuple[Part, ...]]] = {
    "count": ("n",),
    "days_active": ("n",),
    "time_since": ("n", "last_at"),
    "sum": ("valid", "sum"),
    "mean": ("valid", "sum"),
    "std": ("valid", "sum", "square"),
    "min": ("valid", "min"),
    "max": ("valid", "max"),
    "first": ("first",),
    "last": ("last",),
    "distinct": ("distinct",),
    "top_share": ("valid", "top"),
}


@dataclass(frozen=True, slots=True)
class Partial:
    """One of the table above, of a column (of the events themselves: None), of the events that pass ``where``."""

    column: str | None
    part: Part
    where: Where = ()

    @property
    def name(self) -> str:
        """The name of its column in a rollup, or of the first of several."""
        return self.beside("")

    def beside(self, more: str) -> str:
        """The name of another column of it."""
        stem = self.part if self.column is None else f"{self.column}__{self.part}"
        return f"{stem}{more}{f'?{digest_of_where(self.where)[:12]}' if self.where else ''}"

    @property
    def valid(self) -> Partial:
        """The count of values that is held beside it."""
        return Partial(self.column, "n" if self.column is None else "valid", self.where)


def partials_of(definition: OverEvents) -> tuple[Partial, ...]:
    """What a rollup must hold for a feature."""
    return tuple(Partial(definition.column, part, definition.where) for part in _PARTS_OF[definition.aggregate])
