"""The leak guard: what could not be known at an as-of is changed, removed and added to; features at it must stay equal.

A rollup row cannot be known when its event or its knowledge lies at the as-of or later. Of those rows a third is removed, and the
others exchange all their values. Every row that was known comes again as late mail, known only at the as-of. Of the accounts, a
``deleted_at`` after the as-of is taken away: that an account would be deleted could not be known either. So it goes with a
history's rows that begin at the as-of or later, and with the end of a row that still held then. An account's first row stays:
that there is an account, and since when, is no secret of the future.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.features.accounts import order_of
from batchscore.features.definitions import EPOCH
from batchscore.features.feature_set import FeatureSet
from batchscore.features.rollup_columns import KEYS
from batchscore.features.tables import CREATED_AT, DELETED_AT, VALID_FROM, VALID_TO, AccountsTable
from batchscore.keys import ACCOUNT_ID, MOMENT, sort_by_key


def poisoned(rollup: pa.Table, as_of: datetime, feature_set: FeatureSet) -> pa.Table:
    """The rollup rows (sorted by account id) with everything after ``as_of`` poisoned, sorted by account id."""
    end = (as_of - EPOCH) // feature_set.grain
    later = np.maximum(rollup["event_grain"].to_numpy(), rollup["known_grain"].to_numpy()) >= end
    known, unknown = rollup.filter(pa.array(~later)), rollup.filter(pa.array(later))
    left = unknown.filter(pa.array(np.arange(len(unknown)) % 3 != 0))
    late = _with(known, "known_grain", pa.repeat(pa.scalar(end, pa.int32()), len(known)))
    return sort_by_key(pa.concat_tables([known, _exchanged(left, *KEYS), late]))


def poisoned_accounts(rows: pa.Table, as_of: datetime, accounts: AccountsTable) -> pa.Table:
    """Canonical rows of the accounts with what was only known of them later poisoned, in order; of a history they may overlap."""
    if DELETED_AT in accounts.times:
        rows = _with_null(rows, DELETED_AT, pc.greater(rows[DELETED_AT], pa.scalar(as_of, MOMENT)))
    if accounts.history is None:
        return rows
    moment = pa.scalar(as_of, MOMENT)
    begun = pc.less(rows[VALID_FROM], moment).to_numpy()
    ids = rows[ACCOUNT_ID].combine_chunks()
    is_first = np.append(np.ones(min(1, len(ids)), np.bool_), pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False))
    known = rows.filter(pa.array(begun))
    known = _with_null(known, VALID_TO, pc.greater_equal(known[VALID_TO], moment))
    left = rows.filter(pa.array(~begun & (is_first | (np.arange(len(rows)) % 3 != 0))))
    kept = (ACCOUNT_ID, VALID_FROM, *({CREATED_AT} & accounts.times.keys()))
    added = _exchanged(_with(known, VALID_FROM, pa.repeat(moment, len(known))), *kept)
    return sort_by_key(pa.concat_tables([known, _exchanged(left, *kept), added]), *order_of(accounts))


def _exchanged(rows: pa.Table, *kept: str) -> pa.Table:
    """The rows with the values of all columns but ``kept`` exchanged between them."""
    turned = rows.take(pa.array(np.arange(len(rows))[::-1]))
    return pa.table({name: (rows if name in kept else turned)[name] for name in rows.column_names})


def _with(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, values)


def _with_null(rows: pa.Table, name: str, mask: pa.ChunkedArray) -> pa.Table:
    """The moments in the column ``name`` taken away where ``mask`` says so; a null moment stays null."""
    return _with(rows, name, pc.if_else(pc.fill_null(mask, fill_value=False), pa.scalar(None, MOMENT), rows[name]))


def are_equal(frame: pa.Table, other: pa.Table) -> bool:
    """Whether two frames have the same columns with the same bits; a NaN equals itself."""
    if frame.schema != other.schema or len(frame) != len(other):
        return False
    return all(_bits(frame[name]) == _bits(other[name]) for name in frame.column_names)


def _bits(column: pa.ChunkedArray) -> tuple[bytes, bytes] | list[object]:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        values: list[object] = column.to_pylist()
        return values
    present = column.is_valid().to_numpy()
    return column.fill_null(0).to_numpy().tobytes(), present.tobytes()
