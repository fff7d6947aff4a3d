"""Sums of integers that never wrap, and runs of equal keys in sorted rows: what rollups and windows merge with.

Neither knows of events, features or time.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchscore.errors import PartitionError

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]

_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64((1 << 32) - 1)
_LIMIT: Final = 1 << 63


def run_starts(*keys: Column) -> Ints:
    """Where each run of equal keys begins, (n_runs,) ascending; rows with equal keys must stand together."""
    n = len(keys[0])
    if n == 0:
        return np.empty(0, np.int64)
    differs = keys[0][1:] != keys[0][:-1]
    for key in keys[1:]:
        differs |= key[1:] != key[:-1]
    return np.flatnonzero(np.concatenate([[True], differs]))


def reduced(function: np.ufunc, values: Column, starts: Ints) -> Column:
    """``function`` over each run, shape (n_runs,)."""
    return function.reduceat(values, starts) if len(starts) else values[:0]


def may_wrap(values: Ints) -> bool:
    """Whether some sum of some of these int64 might leave int64: a bound that is cheap and errs on the safe side."""
    return len(values) > 0 and max(int(values.max()), -int(values.min())) * len(values) >= _LIMIT


def summed(values: Ints, starts: Ints, where: str) -> Ints:
    """The int64 sum of each run.

    Raises:
        PartitionError: ``sum_overflow``: the absolute values of a run add up to 2^63 or more. That depends on the run
            alone, never on the rows beside it, so it is the same however rows are brought together.
    """
    if may_wrap(values):
        size = np.abs(values).view(np.uint64)  # of −2^63 too: its two's complement is 2^63
        low, high = (reduced(np.add, half, starts) for half in (size & _LOW_HALF, size >> _HALF))
        if ((high + (low >> _HALF)) >> np.uint64(31)).any():  # halves of 32 bits: exact for any number of rows below 2^31
            raise PartitionError(
                "sum_overflow", "a sum leaves the integers that are exact", where=where, remedy="store a larger unit"
            )
    sums: Ints = reduced(np.add, values, starts)
    return sums
