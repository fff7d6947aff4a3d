"""Deviations from merged sums are those of exact arithmetic, however large the sums and however close the values."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.errors import PartitionError
from batchscore.features.exact import carried, deviation, squares

NUMBERS = st.one_of(
    st.integers(-9, 9), st.integers(-(2**44), 2**44), st.integers(2**44 - 5, 2**44), st.sampled_from([0, 2**32, 2**31 - 1])
)


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_a_deviation_is_that_of_exact_arithmetic_however_the_sums_were_merged(numbers: list[int], cuts: list[int]) -> None:
    merged = np.zeros((2, 1), np.int64)
    edges = sorted({0, len(numbers), *(cut for cut in cuts if cut < len(numbers))})
    for low, high in pairwise(edges):
        high_lane, low_lane = squares(np.array(numbers[low:high], np.int64), "x")
        merged += np.array(carried(high_lane.sum(keepdims=True), low_lane.sum(keepdims=True), "x"))
    high_lane, low_lane = carried(merged[0], merged[1], "x")
    assert (int(high_lane[0]) << 32) + int(low_lane[0]) == sum(number**2 for number in numbers)
    n, total = len(numbers), sum(numbers)
    (found,) = deviation(np.array([n]), np.array([total]), high_lane, low_lane)
    assert found == math.sqrt(n * sum(number**2 for number in numbers) - total**2) / n


@pytest.mark.parametrize("n", [2**31 - 1, 1000])
@pytest.mark.parametrize("mean", [2**31, -(2**31) + 1, 3])
def test_a_deviation_of_very_many_values_is_exact_too(n: int, mean: int) -> None:
    square = n * mean**2 + 10**6
    lanes = np.array([square >> 32]), np.array([square & (2**32 - 1)])
    (found,) = deviation(np.array([n]), np.array([n * mean]), *lanes)
    assert found == math.sqrt(n * square - (n * mean) ** 2) / n


def test_a_sum_of_squares_beyond_its_lanes_is_refused() -> None:
    with pytest.raises(PartitionError) as refused:
        carried(np.array([2**63 - 1]), np.array([2**32]), "x")
    assert refused.value.reason == "sum_overflow"
