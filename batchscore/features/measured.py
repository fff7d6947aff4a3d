"""Values of a measured column in their one form: integers, decimals as integers of their last digit, or floats; and hashes.

A *decimal* is a decimal column, or a float column whose ``decimals`` the feature set declares: each float is rounded to the
nearest integer of that digit, half to even, which does not depend on its neighbours. Null and NaN are one thing: no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import PartitionError
from batchscore.features.exact import Column, Ints
from batchscore.features.partials import Part
from batchscore.keys import hash64

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
NO_TIE: Final = np.iinfo(np.int64).min  # an event without a value in the tie column comes before those that have one
_HELD_DIGITS: Final = 19  # of 2^63
_OF_NUMBERS: Final = frozenset({"valid", "sum", "square", "min", "max", "first", "last"})

# What `distinct` and `top_share` take beside numbers.
_COUNTED: Final = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
    pa.types.is_timestamp, pa.types.is_date, pa.types.is_time, pa.types.is_duration,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """``values``: int64 or float64 (n,), anything where ``present`` (bool (n,); None: all are) is false."""

    values: Column
    present: Mask | None


@dataclass(frozen=True, slots=True, eq=False)
class Hashes:
    """Hashes of one column, flattened: entry i belongs to ``row[i]``, is ``words[word[i]]`` and stands ``counts[i]`` times.

    ``words`` ascend; ``counts`` None: each stands once.
    """

    row: Ints
    word: Ints
    words: Words
    counts: Ints | None = None

    def among(self, mask: Mask | None) -> Hashes:
        """The entries of rows that pass."""
        if mask is None:
            return self
        chosen = mask[self.row]
        return Hashes(self.row[chosen], self.word[chosen], self.words)


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, whether or not they stand in a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def held_type(kind: pa.DataType, scale: int | None) -> pa.DataType:
    """What numbers of a column are held as: int64, float64, or decimal128(19, scale)."""
    kind = value_type(kind)
    if pa.types.is_decimal(kind):
        return pa.decimal128(_HELD_DIGITS, kind.scale)
    if pa.types.is_floating(kind):
        return pa.float64() if scale is None else pa.decimal128(_HELD_DIGITS, scale)
    return pa.int64()


def refusal_of_part(kind: pa.DataType, part: Part, scale: int | None) -> str | None:
    """Why a column of that type cannot have the part; None when it can. A column of nothing but nulls can."""
    kind = value_type(kind)
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind) or pa.types.is_decimal128(kind)
    if whole:
        return None
    if pa.types.is_floating(kind):
        inexact = part in {"sum", "square"} and scale is None
        return "a sum of floats depends on their order: declare their digits, decimals: {amount: 2}" if inexact else None
    if part in _OF_NUMBERS:
        return "numbers only"
    return None if any(is_kind(kind) for is_kind in _COUNTED) else "numbers, text and times only"


def refusal_of_tie(kind: pa.DataType) -> str | None:
    """Why a column of that type cannot order events of one moment; None when it can."""
    kind = value_type(kind)
    able = pa.types.is_integer(kind) or pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return None if able else "a tie is broken by an integer or a text"


def presence_of(values: pa.ChunkedArray) -> Mask | None:
    """Where a value is: neither null nor NaN. None: everywhere."""
    values = values.cast(value_type(values.type))
    absent = pc.is_null(values, nan_is_null=pa.types.is_floating(values.type)).to_numpy()
    return ~absent if absent.any() else None


def numbers_of(values: pa.ChunkedArray, column: str, scale: int | None) -> Numbers:
    """Numbers in their one form; −0.0 is 0.0.

    Raises:
        PartitionError: ``sum_overflow``: an integer beyond 2^63 − 1, or a float that is no decimal of 18 digits.
    """
    values = values.cast(value_type(values.type))
    if pa.types.is_floating(values.type):
        floats = values.cast(pa.float64()).fill_null(np.nan).to_numpy() + 0.0
        present = ~np.isnan(floats)
        if scale is None:
            return Numbers(floats, present)
        scaled = np.rint(np.where(present, floats, 0.0) * 10.0**scale)
        if not (np.abs(scaled) < 2.0**63).all():
            raise _beyond(column)
        return Numbers(scaled.astype(np.int64), None if present.all() else present)
    present = values.is_valid().to_numpy() if values.null_count else None
    if pa.types.is_decimal(values.type):
        return Numbers(unscaled(values, column), present)
    try:
        whole = values.cast(pa.int64())
    except pa.ArrowInvalid:
        raise _beyond(column) from None
    return Numbers(whole.fill_null(0).to_numpy(), present)


def _beyond(column: str) -> PartitionError:
    return PartitionError(
        "sum_overflow", "holds numbers beyond 2^63 − 1 of their last digit", where=column, remedy="store a larger unit"
    )


def unscaled(decimals: pa.ChunkedArray | pa.Array, column: str) -> Ints:
    """Decimals as int64 of their last digit; 0 where null."""
    held = decimals.combine_chunks() if isinstance(decimals, pa.ChunkedArray) else decimals
    if not len(held):
        return np.empty(0, np.int64)
    held = held.cast(pa.decimal128(38, held.type.scale))
    words = np.frombuffer(held.buffers()[1], np.int64)[2 * held.offset : 2 * (held.offset + len(held))].reshape(-1, 2)
    present = held.is_valid().to_numpy(zero_copy_only=False)
    low = np.where(present, words[:, 0], 0)
    if (present & (words[:, 1] != low >> np.int64(63))).any():
        raise _beyond(column)
    return low


def as_held(values: Column, absent: Mask | None, kind: pa.DataType) -> pa.Array:
    """Numbers as an array of the type they are held as, null where ``absent``."""
    if not pa.types.is_decimal(kind):
        return pa.array(values, mask=absent).cast(kind)
    words = np.empty((len(values), 2), np.int64)
    words[:, 0], words[:, 1] = values, values >> np.int64(63)
    valid = None if absent is None else pa.array(~absent).buffers()[1]
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(words)])


def ties_of(values: pa.ChunkedArray, column: str) -> Ints:
    """What orders events of one moment, int64: integers as they are, text by a 64-bit hash (any order, always the same)."""
    values = values.cast(value_type(values.type))
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        found = numbers_of(values, column, None)
        return found.values if found.present is None else np.where(found.present, found.values, NO_TIE)
    ties = np.full(len(values), NO_TIE)
    ties[values.is_valid().to_numpy()] = hash64(values.drop_null().combine_chunks()).view(np.int64)
    return ties


def hashes_of(values: pa.ChunkedArray, column: str, scale: int | None) -> Hashes:
    """Hashes of the values that are present; each different value is hashed once."""
    kind = value_type(values.type)
    if pa.types.is_decimal(kind) or (pa.types.is_floating(kind) and scale is not None):
        found = numbers_of(values, column, scale)
        values = pa.chunked_array([pa.array(found.values, mask=None if found.present is None else ~found.present)])
    encoded = _hashable(values.combine_chunks()).dictionary_encode()
    words, rank = np.unique(hash64(encoded.dictionary.drop_null()), return_inverse=True)
    row = np.flatnonzero(encoded.is_valid().to_numpy(zero_copy_only=False))
    return Hashes(row, rank[encoded.indices.drop_null().to_numpy()], words)


def _hashable(values: pa.Array) -> pa.Array:
    """Integers, or text and bytes, that are equal when the values are; NaN is null."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _hashable(values.dictionary_decode())
    if pa.types.is_floating(kind):
        floats = pc.add(values.cast(pa.float64()), 0.0)
        return pc.if_else(pc.is_nan(floats), pa.scalar(None, pa.float64()), floats).view(pa.int64())
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return values.cast(pa.int32())
    if pa.types.is_temporal(kind):
        return values.cast(pa.int64())
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.int8())
    return values
