"""Account ids and moments in Arrow: the ids' two exact kinds, how they are compared, and key digests of them.

``integer`` ids are uint64, ``string`` ids are UTF-8 text compared by its bytes. Neither ever passes through a float or a
collation. Which kind a review database holds is fixed when it is made.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.digest import KeyDigest

IdKind = Literal["integer", "string"]
ACCOUNT_ID: Final = "account_id"  # the column's name in every file we write
MOMENT: Final = pa.timestamp("us", tz="UTC")  # of every column of times in the files we write
ID_TYPES: Final[dict[IdKind, pa.DataType]] = {"integer": pa.uint64(), "string": pa.string()}

# Two independent streams of SplitMix64 (Steele, Lea, Flood, 2014): its finaliser is a bijection on 64-bit words.
_SEED_A: Final = np.uint64(0x9E3779B97F4A7C15)
_SEED_B: Final = np.uint64(0xD1B54A32D192ED03)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)

Words = npt.NDArray[np.uint64]


def key_digest(ids: pa.Array | pa.ChunkedArray) -> KeyDigest:
    """The key digest of distinct ids (uint64 or string, no nulls), whatever their order."""
    n, lane_a, lane_b = len(ids), 0, 0
    for chunk in ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]:
        lane_a += int(hash64(chunk, _SEED_A).sum(dtype=np.uint64))
        lane_b += int(hash64(chunk, _SEED_B).sum(dtype=np.uint64))
    return KeyDigest(n, lane_a % (1 << 64), lane_b % (1 << 64))


def hash64(values: pa.Array, seed: np.uint64 = _SEED_A) -> Words:
    """A 64-bit hash of each value (integers, or text and binary by their bytes), shape (n,), free of order and cut.

    Equal text hashes equally whatever its Arrow type (string, large_string, dictionary); nulls must be gone.
    """
    if values.null_count:
        msg = "nulls have no hash"
        raise ValueError(msg)
    if not len(values):
        return np.empty(0, np.uint64)  # an empty array may come without buffers
    if pa.types.is_dictionary(values.type):
        return _hash_dictionary(values, seed)
    if pa.types.is_integer(values.type):
        return _mix(
            values.to_numpy(zero_copy_only=False)
            .astype(np.int64 if pa.types.is_signed_integer(values.type) else np.uint64)
            .view(np.uint64)
            ^ seed
        )
    return _hash_bytes(values.cast(pa.large_binary()), seed)


def _hash_dictionary(values: pa.DictionaryArray, seed: np.uint64) -> Words:
    """Each word of the dictionary is hashed once. A null among the words is no matter unless a row uses it."""
    words = values.dictionary
    indices = values.indices.to_numpy(zero_copy_only=False)
    present = words.is_valid().to_numpy(zero_copy_only=False)
    if not present[indices].all():
        msg = "nulls have no hash"
        raise ValueError(msg)
    hashes = np.zeros(len(words), np.uint64)
    hashes[present] = hash64(words.drop_null(), seed)
    chosen: Words = hashes[indices]
    return chosen


def _mix(words: Words) -> Words:
    with np.errstate(over="ignore"):
        words = words + _SEED_A
        words = (words ^ (words >> np.uint64(30))) * _MIX_1
        words = (words ^ (words >> np.uint64(27))) * _MIX_2
        return words ^ (words >> np.uint64(31))


def _hash_bytes(values: pa.Array, seed: np.uint64) -> Words:
    """Eight bytes at a time over all values at once; the length is mixed in first, so padding with zeros cannot collide."""
    n = len(values)
    _, offsets_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[values.offset : values.offset + n + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer is not None else np.empty(0, np.uint8)
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    state = _mix(lengths.astype(np.uint64) ^ seed)
    padded = np.concatenate([data[offsets[0] : offsets[-1]], np.zeros(8, np.uint8)])  # of a slice, its own bytes only
    live = np.flatnonzero(lengths > 0)
    step = 0
    while len(live):
        at = starts[live] + step
        window = padded[at[:, None] + np.arange(8)]
        beyond = np.arange(8) >= (lengths[live] - step)[:, None]
        window[beyond] = 0
        state[live] = _mix(state[live] ^ np.ascontiguousarray(window).view(np.uint64)[:, 0])
        step += 8
        live = live[lengths[live] > step]
    return state


def sort_by_key(table: pa.Table, *more: str) -> pa.Table:
    """``table`` in the order of its account ids (bytes for text, unsigned for integers), then of the columns ``more``."""
    return table.sort_by([(name, "ascending") for name in (ACCOUNT_ID, *more)])


def is_strictly_increasing(ids: pa.Array | pa.ChunkedArray) -> bool:
    """Whether each id is larger than the one before: sorted and without a duplicate."""
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return len(ids) < 2 or bool(pc.all(pc.less(ids[:-1], ids[1:])).as_py())


def in_range(ids: pa.ChunkedArray | pa.Array, low: int | str | None, high: int | str | None) -> pa.ChunkedArray | pa.Array | None:
    """A boolean mask of ``low <= id < high``; None when neither bound is set."""
    mask = None
    if low is not None:
        mask = pc.greater_equal(ids, pa.scalar(low, type=ids.type))
    if high is not None:
        below = pc.less(ids, pa.scalar(high, type=ids.type))
        mask = below if mask is None else pc.and_(mask, below)
    return mask


def positions(ids: pa.Array, among: pa.Array) -> npt.NDArray[np.int64]:
    """Index of each id in ``among`` (distinct), shape (n,); -1 where it is absent."""
    found = pc.index_in(ids, value_set=among)
    result: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return result
