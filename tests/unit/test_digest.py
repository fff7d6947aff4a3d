"""Digests: canonical, and of sets of keys."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.digest import KeyDigest, canonical_json, digest_of, total

key_digests = st.builds(KeyDigest, st.integers(0, 10**9), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


def test_equal_values_have_equal_digests_whatever_the_order_of_their_keys() -> None:
    assert digest_of({"a": 1, "b": [datetime(2002, 8, 19, tzinfo=UTC)]}) == digest_of(
        {"b": [datetime(2002, 8, 19, tzinfo=UTC)], "a": 1}
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_without_a_canonical_form_has_no_digest(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_a_value_without_a_canonical_form_has_no_digest() -> None:
    with pytest.raises(TypeError, match="set"):
        canonical_json({1, 2})


@given(key_digests)
def test_a_key_digest_is_read_back_from_its_text(digest: KeyDigest) -> None:
    assert KeyDigest.parse(str(digest)) == digest


@given(st.lists(key_digests, max_size=6), st.randoms())
def test_the_digest_of_a_union_is_the_sum_in_any_order(digests: list[KeyDigest], random: Random) -> None:
    shuffled = digests.copy()
    random.shuffle(shuffled)
    assert total(shuffled) == total(digests)


@given(key_digests, key_digests)
def test_taking_a_set_away_again_leaves_the_other(one: KeyDigest, other: KeyDigest) -> None:
    assert one + other - other == one
