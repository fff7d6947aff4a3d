"""Sums of integers that never wrap, deviations from them, and runs of equal keys in sorted rows.

What rollups and windows merge with. Nothing here knows of events, features or time.

A sum of squares is held in two lanes, ``q // 2^32`` and ``q mod 2^32``, each int64: sums of lanes are exact, and carried lanes
are the one form of a number, so they are equal however rows were brought together. It holds up to 2^95.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchscore.errors import PartitionError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
Column = npt.NDArray[Any]

_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64((1 << 32) - 1)
_LIMIT: Final = 1 << 63
_LARGEST_SQUARED: Final = 1 << 47


def overflow(where: str) -> PartitionError:
    """The error of a sum that cannot be exact."""
    return PartitionError("sum_overflow", "a sum leaves the integers that are exact", where=where, remedy="store a larger unit")


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


def halves(values: Ints) -> tuple[Ints, Ints]:
    """The absolute values as (value mod 2^32, value // 2^32): sums of either are exact for any number of rows below 2^31."""
    size = np.abs(values).view(np.uint64)  # of −2^63 too: its two's complement is 2^63
    return (size & _LOW_HALF).astype(np.int64), (size >> _HALF).astype(np.int64)


def is_exact(low: Ints, high: Ints) -> bool:
    """Whether sums of `halves` all stay below 2^63."""
    return not ((high + (low >> np.int64(32))) >> np.int64(31)).any()


def summed(values: Ints, starts: Ints, where: str) -> Ints:
    """The int64 sum of each run.

    Raises:
        PartitionError: ``sum_overflow``: the absolute values of a run add up to 2^63 or more. That depends on the run
            alone, never on the rows beside it, so it is the same however rows are brought together.
    """
    if may_wrap(values) and not is_exact(*(reduced(np.add, half, starts) for half in halves(values))):
        raise overflow(where)
    sums: Ints = reduced(np.add, values, starts)
    return sums


def squares(values: Ints, where: str) -> tuple[Ints, Ints]:
    """The square of each value in two lanes.

    Raises:
        PartitionError: ``sum_overflow``: a value is 2^47 or more; its square would leave no room for others.
    """
    if len(values) and max(int(values.max()), -int(values.min())) >= _LARGEST_SQUARED:
        raise overflow(where)
    high, low = np.divmod(np.abs(values).view(np.uint64), np.uint64(1 << 32))  # below 2^15 and 2^32
    square = low * low
    upper = ((high * high) << _HALF) + np.uint64(2) * high * low + (square >> _HALF)
    return upper.view(np.int64), (square & _LOW_HALF).view(np.int64)


def carried(high: Ints, low: Ints, where: str) -> tuple[Ints, Ints]:
    """Sums of lanes in the one form that a number has.

    Raises:
        PartitionError: ``sum_overflow``: it is 2^95 or more.
    """
    sums = high + (low >> np.int64(32))
    if (sums < 0).any():
        raise overflow(where)
    return sums, low & np.int64((1 << 32) - 1)


def deviation(n: Ints, total: Ints, high: Ints, low: Ints) -> Floats:
    """√(n·q − total²) / n for sums over ``n`` values (below 2^31): the population's standard deviation; NaN where n is 0.

    Exact integers of 128 bits up to the root: n·q and total² may agree in all digits that a float64 has.
    """
    count, lower = n.view(np.uint64), low.view(np.uint64)
    middle, upper = high.view(np.uint64) & _LOW_HALF, high.view(np.uint64) >> _HALF
    product = _joined(count * lower, count * middle, count * upper)
    size = np.abs(total).view(np.uint64)
    tail, head = size & _LOW_HALF, size >> _HALF
    square = _joined(tail * tail, np.zeros_like(tail), head * head)
    square = _plus(square, tail * head)
    square = _plus(square, tail * head)
    high_word = product[0] - square[0] - (product[1] < square[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        spread: Floats = np.sqrt(_rounded(high_word, product[1] - square[1])) / n
    return spread


def _joined(ones: Words, at_32: Words, at_64: Words) -> tuple[Words, Words]:
    """``ones + at_32·2^32 + at_64·2^64`` modulo 2^128, as (high, low) words."""
    return _plus((at_64.copy(), ones.copy()), at_32)


def _plus(number: tuple[Words, Words], at_32: Words) -> tuple[Words, Words]:
    high, low = number
    found = low + (at_32 << _HALF)
    return high + (at_32 >> _HALF) + (found < low), found


def _rounded(high: Words, low: Words) -> Floats:
    """``high·2^64 + low`` as the nearest float64, ties to even: rounded once, from 64 leading bits, the last of them sticky."""
    _, exponent = np.frexp(high.astype(np.float64))
    shift = np.minimum(exponent, 64).astype(np.uint64)  # of a high word just below a power of 2 perhaps one too many: no matter
    wide = shift > 0
    kept = np.where(shift == 64, high, (high << (np.uint64(64) - np.maximum(shift, 1))) | (low >> np.minimum(shift, 63)))
    lost = np.where(shift == 64, low, low & ((np.uint64(1) << np.minimum(shift, 63)) - np.uint64(1))) != 0
    leading = np.where(wide, kept | lost, low)
    found: Floats = np.ldexp(leading.astype(np.float64), shift.astype(np.int64))
    return found
