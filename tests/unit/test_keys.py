"""Hashes and digests of account ids say the same however Arrow holds them, and ids never lose a bit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.keys import hash64, in_range, is_strictly_increasing, key_digest, positions, sort_by_key

EDGES = [0, 1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
STRINGS = ["", "0", "00", "007", " 7", "7 ", "\0", "\0\0", "e\u0301", "\u00e9", "\U0001f600", "a" * 8, "a" * 7 + "\0", "a" * 9]
texts = st.lists(st.text(max_size=40), min_size=1, max_size=30)
uint64s = st.integers(0, 2**64 - 1)


@settings(max_examples=25, deadline=None)
@given(texts, st.integers(0, 5), st.integers(0, 5))
def test_equal_text_hashes_equally_as_string_large_string_dictionary_binary_and_slice(
    values: list[str], before: int, after: int
) -> None:
    plain = hash64(pa.array(values, pa.string()))
    padded = pa.array(["x" * n for n in range(before)] + values + ["y"] * after, pa.string()).slice(before, len(values))
    unused = pa.DictionaryArray.from_arrays(
        pa.array([values.index(value) + 1 for value in values], pa.int32()), pa.array(["unused", *values])
    )
    forms = [
        pa.array(values, pa.large_string()),
        pa.array(values, pa.string_view()),
        pa.array(values, pa.string()).dictionary_encode(),
        pa.array([value.encode() for value in values], pa.binary()),
        padded,
        padded.cast(pa.large_string()),
        unused,
        pa.concat_arrays([unused, unused]).slice(len(values)),
    ]
    for form in forms:
        assert hash64(form).tolist() == plain.tolist(), form.type


@settings(max_examples=25, deadline=None)
@given(st.lists(uint64s.filter(lambda value: value < 2**31), min_size=1, max_size=30))
def test_equal_integers_hash_equally_in_every_width_and_slice(values: list[int]) -> None:
    plain = hash64(pa.array(values, pa.uint64())).tolist()
    for kind in (pa.int32(), pa.int64(), pa.uint32()):
        assert hash64(pa.array([5, *values, 7], kind).slice(1, len(values))).tolist() == plain


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=20), st.sampled_from(STRINGS)), unique=True, max_size=60))
def test_unequal_strings_do_not_collide(values: list[str]) -> None:
    assert len(set(hash64(pa.array(values, pa.string())).tolist())) == len(values)


def test_a_million_neighbouring_integers_do_not_collide() -> None:
    values = np.concatenate([np.arange(1_000_000, dtype=np.uint64), np.array(EDGES, np.uint64)[3:]])
    assert len(np.unique(hash64(pa.array(values)))) == len(values)


def test_strings_that_differ_in_trailing_zero_bytes_or_normal_form_do_not_collide() -> None:
    assert len(set(hash64(pa.array(STRINGS)).tolist())) == len(STRINGS)


def test_an_empty_array_and_one_of_empty_strings_hash() -> None:
    assert len(hash64(pa.array([], pa.string()))) == 0
    assert len(hash64(pa.array([], pa.string()).dictionary_encode())) == 0
    assert len(set(hash64(pa.array(["", ""])).tolist())) == 1


def test_nulls_have_no_hash_wherever_they_hide() -> None:
    hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["a", None]))
    for array in (pa.array([1, None], pa.int64()), pa.array(["a", None]), pa.array(["a", None]).dictionary_encode(), hidden):
        with pytest.raises(ValueError, match="nulls"):
            hash64(array)


def test_a_null_in_the_dictionary_that_no_row_uses_is_no_null() -> None:
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["a", None]))
    assert hash64(unused).tolist() == hash64(pa.array(["a", "a"])).tolist()


@settings(max_examples=25, deadline=None)
@given(st.lists(uint64s, unique=True, max_size=40), st.integers(0, 40))
def test_key_digests_add_and_do_not_mind_order(ids: list[int], cut: int) -> None:
    whole = key_digest(pa.array(ids, pa.uint64()))
    mixed = list(reversed(ids))
    parts = key_digest(pa.array(mixed[:cut], pa.uint64())) + key_digest(pa.array(mixed[cut:], pa.uint64()))
    assert parts == whole
    assert whole - key_digest(pa.array(mixed[:cut], pa.uint64())) == key_digest(pa.array(mixed[cut:], pa.uint64()))
    assert key_digest(pa.chunked_array([pa.array(mixed[:cut], pa.uint64()), pa.array(mixed[cut:], pa.uint64())])) == whole


@settings(max_examples=25, deadline=None)
@given(st.lists(uint64s, unique=True, min_size=1, max_size=20), uint64s)
def test_a_key_digest_changes_when_one_key_is_swapped_for_another(ids: list[int], stranger: int) -> None:
    if stranger not in ids:
        assert key_digest(pa.array(ids, pa.uint64())) != key_digest(pa.array([stranger, *ids[1:]], pa.uint64()))


@pytest.mark.parametrize("ids", [pa.array(EDGES[::-1], pa.uint64()), pa.array(STRINGS[::-1])])
def test_sorting_is_exact_by_number_and_by_bytes(ids: pa.Array) -> None:
    held = sort_by_key(pa.table({"account_id": ids}))["account_id"]
    assert held.to_pylist() == sorted(ids.to_pylist(), key=lambda key: key.encode() if isinstance(key, str) else key)
    assert is_strictly_increasing(held)


def test_strictly_increasing_sees_a_duplicate_and_a_fall_also_across_chunks_and_sign() -> None:
    assert is_strictly_increasing(pa.array([], pa.uint64()))
    assert is_strictly_increasing(pa.chunked_array([], pa.uint64()))
    assert is_strictly_increasing(pa.array([2**63 - 1, 2**63, 2**64 - 1], pa.uint64()))
    assert not is_strictly_increasing(pa.chunked_array([pa.array([1, 2], pa.uint64()), pa.array([2, 3], pa.uint64())]))
    assert not is_strictly_increasing(pa.array([2**63, 1], pa.uint64()))


@settings(max_examples=25, deadline=None)
@given(st.lists(uint64s | st.sampled_from(EDGES), max_size=30), st.none() | uint64s | st.sampled_from(EDGES), st.none() | uint64s)
def test_a_range_mask_is_low_included_high_not(ids: list[int], low: int | None, high: int | None) -> None:
    mask = in_range(pa.array(ids, pa.uint64()), low, high)
    wanted = [(low is None or key >= low) and (high is None or key < high) for key in ids]
    assert all(wanted) if mask is None else mask.to_pylist() == wanted


def test_positions_are_exact_beyond_2_to_the_53_and_absent_ids_are_minus_one() -> None:
    among = pa.array([2**53, 2**53 + 1, 2**64 - 1], pa.uint64())
    assert positions(pa.array([2**53 + 1, 2**53 - 1, 2**64 - 1], pa.uint64()), among).tolist() == [1, -1, 2]
