"""The leak guard: what could not be known at an as-of is changed, removed and added to; features at it must stay equal.

A rollup row cannot be known when its event or its knowledge lies at the as-of or later. Of those rows a third is removed, and the
others exchange all their values. Every row that was known comes again as late mail, known only at the as-of. Of the accounts, a
``deleted_at`` after the as-of is taken away: that an account would be deleted could not be known either.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.features.feature_set import EPOCH, FeatureSet
from batchscore.features.frame import DELETED_AT, MOMENT
from batchscore.features.rollup import KEYS
from batchscore.keys import sort_by_key


def poisoned(rollup: pa.Table, as_of: datetime, feature_set: FeatureSet) -> pa.Table:
    """The rollup rows (sorted by account id) with everything after ``as_of`` poisoned, sorted by account id."""
    end = (as_of - EPOCH) // feature_set.grain
    later = np.maximum(rollup["event_grain"].to_numpy(), rollup["known_grain"].to_numpy()) >= end
    known, unknown = rollup.filter(pa.array(~later)), rollup.filter(pa.array(later))
    left = unknown.filter(pa.array(np.arange(len(unknown)) % 3 != 0))
    exchanged = left.select(list(KEYS))
    turned = left.take(pa.array(np.arange(len(left))[::-1]))
    for name in left.column_names[len(KEYS) :]:
        exchanged = exchanged.append_column(left.schema.field(name), turned[name])
    place = known.schema.get_field_index("known_grain")
    late = known.set_column(place, "known_grain", pa.repeat(pa.scalar(end, pa.int32()), len(known)))
    return sort_by_key(pa.concat_tables([known, exchanged, late]))


def poisoned_accounts(accounts: pa.Table, as_of: datetime) -> pa.Table:
    """The accounts without what was only known of them later."""
    if DELETED_AT not in accounts.column_names:
        return accounts
    later = pc.greater(accounts[DELETED_AT], pa.scalar(as_of, MOMENT))
    place = accounts.schema.get_field_index(DELETED_AT)
    return accounts.set_column(place, DELETED_AT, pc.if_else(later, pa.scalar(None, MOMENT), accounts[DELETED_AT]))


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
