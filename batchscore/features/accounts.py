"""Accounts as of a moment: each once, with what was known of it then. Where this is decided, whatever the accounts' table is.

A table without history has one row an account, and that row stands for every as-of. A *history* has several, each for a time
``valid_from <= t < valid_to`` (null ``valid_to``: it still holds). What stands in a row of a history is known once the row has
begun, so as of T, as everywhere, what begins at T itself is not known yet:

- An account's columns are those of the row with ``valid_from < T <= valid_to``; where there is none, in a gap, they are missing.
- ``created_at`` and ``deleted_at`` are those of the latest row with ``valid_from < T``, also when it has ended: who is in a gap
  exists. Before the first row, ``created_at`` is that of the first, since it speaks of the past, and nothing is deleted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import Refused
from batchscore.features.tables import CREATED_AT, DELETED_AT, VALID_FROM, VALID_TO, AccountsTable
from batchscore.keys import ACCOUNT_ID, MOMENT, is_strictly_increasing, sort_by_key

_NEVER_US: Final = np.iinfo(np.int64).max


class Accounts:
    """The accounts of a table of canonical rows, in the order of `ordered`; of a history, each account is still one.

    ``ids``: the accounts, each once, ascending. ``repeated``: the ids of all further rows of each; empty without history.
    """

    def __init__(self, rows: pa.Table, *, history: bool = False) -> None:
        self.rows = rows
        self._history = _History(rows) if history else None
        self.ids: pa.Array = rows[ACCOUNT_ID].combine_chunks()
        self.repeated: pa.Array = self.ids.slice(len(self.ids))
        if self._history is not None:
            is_first = pa.array(self._history.is_first)
            self.ids, self.repeated = self.ids.filter(is_first), self.ids.filter(pc.invert(is_first))
        self._held: tuple[datetime, pa.Table] | None = None

    @classmethod
    def of(cls, rows: pa.Table, declared: AccountsTable) -> Accounts:
        """From rows in any order; raises as `ordered`."""
        return cls(ordered(rows, declared, where=declared.table), history=declared.history is not None)

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, as_of: datetime) -> pa.Table:
        """One row an account, as of ``as_of``, in the order of ``ids``; without history the rows, uncopied."""
        if self._history is None:
            return self.rows
        if self._held is None or self._held[0] != as_of:  # asked for several times, one as-of after the other
            self._held = as_of, self._history.at(as_of)
        return self._held[1]


class _History:
    """Rows of a history, sorted by account and ``valid_from``: which of them speaks of each account at a moment."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows.combine_chunks()
        ids = rows[ACCOUNT_ID].combine_chunks()
        self.is_first = np.ones(len(ids), np.bool_)
        self.is_first[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        self.first = np.flatnonzero(self.is_first)
        self._end = np.append(self.first[1:], len(ids))
        self._from_us = rows[VALID_FROM].cast(pa.int64()).to_numpy()
        self._to_us = rows[VALID_TO].cast(pa.int64()).fill_null(_NEVER_US).to_numpy()

    def at(self, as_of: datetime) -> pa.Table:
        us = pa.scalar(as_of, MOMENT).cast(pa.int64()).as_py()
        begun = np.append(0, np.cumsum(self._from_us < us))
        n_begun = begun[self._end] - begun[self.first]
        latest = self.first + n_begun - 1
        unknown = n_begun == 0
        row = np.where(unknown, self.first, latest)
        ended = unknown | (self._to_us[row] < us)
        places = {ACCOUNT_ID: pa.array(row), CREATED_AT: pa.array(row), DELETED_AT: pa.array(row, mask=unknown)}
        valid = pa.array(row, mask=ended)
        names = [name for name in self._rows.column_names if name not in (VALID_FROM, VALID_TO)]
        return pa.table({name: self._rows[name].take(places.get(name, valid)) for name in names})


def order_of(accounts: AccountsTable) -> tuple[str, ...]:
    """The columns after the account id by which canonical rows are sorted."""
    return () if accounts.history is None else (VALID_FROM,)


def ordered(rows: pa.Table, accounts: AccountsTable, *, where: str) -> pa.Table:
    """The rows by account id, then by ``valid_from``; themselves, uncopied, when they stand so.

    Raises:
        Refused: ``duplicate_id``: an account stands twice. ``history_overlap``: two rows of an account speak of one moment.
    """
    if are_sound(rows, accounts):
        return rows
    rows = sort_by_key(rows, *order_of(accounts))
    if not are_sound(rows, accounts):
        raise refusal(accounts, where=where)
    return rows


def are_sound(rows: pa.Table, accounts: AccountsTable) -> bool:
    """Whether rows stand in order, an account in each; of a history, each row of an account ended before its next begins."""
    ids = rows[ACCOUNT_ID].combine_chunks()
    if accounts.history is None or len(ids) < 2:
        return is_strictly_increasing(ids)
    begins, ends = rows[VALID_FROM].combine_chunks(), rows[VALID_TO].combine_chunks()
    ended = pc.fill_null(pc.less_equal(ends[:-1], begins[1:]), fill_value=False)
    sound: Any = pc.if_else(pc.equal(ids[:-1], ids[1:]), ended, pc.less(ids[:-1], ids[1:]))
    return bool(pc.all(sound).as_py())


def refusal(accounts: AccountsTable, *, where: str) -> Refused:
    """What is said of rows that are not sound in any order."""
    if accounts.history is None:
        return Refused("duplicate_id", "an account stands more than once", where=where, remedy="keep one row per account")
    return Refused(
        "history_overlap",
        "two rows of one account hold at the same moment",
        where=where,
        remedy=f"end each row ({accounts.history.valid_to.column}) at or before the account's next one begins",
    )


def empty_intervals(rows: dict[str, pa.Array]) -> npt.NDArray[np.bool_]:
    """Which rows of a history hold at no moment: they end before they begin, or as they begin."""
    found: Any = pc.fill_null(pc.less_equal(rows[VALID_TO], rows[VALID_FROM]), fill_value=False)
    empty: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return empty
