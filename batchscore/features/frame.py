"""The frame: one row of features per account, as of a moment. What an account gets depends on its own rows alone.

Accounts come as a table of one row each, sorted by ``account_id``, as of the moment, with ``created_at`` and ``deleted_at``
(timestamp[us, UTC]) where the feature set declares them, and the columns that features read, under their own names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.features.accounts import Accounts
from batchscore.features.definitions import AccountColumn, Age, Difference, OverEvents, PythonFeature, Ratio
from batchscore.features.feature_set import FeatureSet
from batchscore.features.python import call
from batchscore.features.tables import CREATED_AT, DELETED_AT
from batchscore.features.windows import Prepared, Window
from batchscore.keys import ACCOUNT_ID, MOMENT

BLOCK_BYTES: Final = 128 << 20  # of feature values held at once
_US_A_DAY: Final = 86_400_000_000
Mask = npt.NDArray[np.bool_]


def population(accounts: pa.Table, as_of: datetime) -> Mask:
    """Which accounts exist at ``as_of``, bool (n,): created before it and not deleted by it.

    An account whose ``created_at`` is null exists at every as-of: its age is missing, but it must not escape scoring.
    """
    moment = pa.scalar(as_of, MOMENT)
    inside = np.ones(len(accounts), np.bool_)
    if CREATED_AT in accounts.column_names:
        inside &= pc.fill_null(pc.less(accounts[CREATED_AT], moment), fill_value=True).to_numpy()
    if DELETED_AT in accounts.column_names:
        inside &= pc.fill_null(pc.greater(accounts[DELETED_AT], moment), fill_value=True).to_numpy()
    return inside


def make_frames(
    accounts: Accounts, prepared: Mapping[str, Prepared], as_ofs: Sequence[datetime], feature_set: FeatureSet
) -> Iterator[pa.Table]:
    """For each as-of (ascending) the frame of all accounts: ``account_id`` and every feature in the feature set's order.

    Counts, days active and sums of integers are int64, other values float64 with NaN for missing; account columns keep their
    type (text, of a category) and are not copied, but that a decimal becomes the nearest float64. A ratio or difference may be
    infinite where it leaves float64. Windows slide over as many as-ofs at once as `BLOCK_BYTES` of values hold.

    Raises:
        PartitionError: ``sum_overflow``, or ``python_feature``.
    """
    over_events = {name: definition for name, definition in feature_set.features.items() if isinstance(definition, OverEvents)}
    n_together = max(1, BLOCK_BYTES // max(1, 8 * len(accounts) * max(1, len(over_events))))
    for first in range(0, len(as_ofs), n_together):
        block = as_ofs[first : first + n_together]
        windows: dict[tuple[str, timedelta | None], Window] = {}
        found: dict[str, npt.NDArray[Any]] = {}
        for name, definition in over_events.items():
            key = definition.table, definition.window
            if key not in windows:
                windows[key] = Window(prepared[definition.table], block, definition.window)
            found[name] = windows[key].feature(definition)
        for number, as_of in enumerate(block):
            yield _frame(accounts.at(as_of), {name: values[number] for name, values in found.items()}, as_of, feature_set)


def make_frame(
    accounts: pa.Table, prepared: Mapping[str, Prepared], as_of: datetime, feature_set: FeatureSet, wanted: Mask | None = None
) -> pa.Table:
    """The frame of one as-of, as `make_frames` makes it, for the ``wanted`` of the accounts as of then (all when None)."""
    (frame,) = make_frames(Accounts(accounts), prepared, [as_of], feature_set)
    return frame if wanted is None else only(frame, wanted)


def only(frame: pa.Table, wanted: Mask) -> pa.Table:
    """The ``wanted`` rows; the frame itself, uncopied, when that is all of them."""
    return frame if wanted.all() else frame.filter(pa.array(wanted))


def _frame(accounts: pa.Table, over_events: Mapping[str, npt.NDArray[Any]], as_of: datetime, feature_set: FeatureSet) -> pa.Table:
    columns: dict[str, pa.Array | pa.ChunkedArray] = {ACCOUNT_ID: accounts[ACCOUNT_ID]}
    for name, definition in feature_set.features.items():
        match definition:
            case OverEvents():
                columns[name] = pa.array(over_events[name])
            case AccountColumn():
                columns[name] = _undecimal(accounts[definition.column])
            case Age():
                columns[name] = _age(accounts, as_of)
            case Ratio():
                columns[name] = _ratio(columns[definition.numerator], columns[definition.denominator])
            case Difference():
                with np.errstate(all="ignore"):
                    columns[name] = pa.array(_float64(columns[definition.minuend]) - _float64(columns[definition.subtrahend]))
            case PythonFeature():
                columns[name] = pa.array(call(definition, {part: _float64(columns[part]) for part in definition.of}))
    return pa.table(columns)


def _undecimal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column


def _age(accounts: pa.Table, as_of: datetime) -> pa.Array:
    """Days from created_at to the as-of, float64; NaN where created_at is null."""
    created = accounts[CREATED_AT]
    us = pa.scalar(as_of, MOMENT).cast(pa.int64()).as_py() - created.cast(pa.int64()).fill_null(0).to_numpy()
    return pa.array(np.where(created.is_valid().to_numpy(), us / _US_A_DAY, np.nan))


def _ratio(numerator: pa.Array | pa.ChunkedArray, denominator: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Float64; NaN where either is missing or the divisor is 0."""
    above, below = _float64(numerator), _float64(denominator)
    with np.errstate(all="ignore"):
        return pa.array(np.where(below != 0, above / below, np.nan))


def _float64(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    cast = values.cast(pa.float64(), safe=False).fill_null(np.nan)
    found: npt.NDArray[np.float64] = cast.to_numpy(zero_copy_only=False) if isinstance(cast, pa.Array) else cast.to_numpy()
    return found
