"""Histograms add exactly however scores are cut, and drift is zero for equal shapes and never infinite."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.report.charts import threshold_at
from batchscore.report.drift import drift_against, in_words
from batchscore.report.histogram import EDGES, N_BINS, added, from_footer, histogram, psi, to_footer

EARLIER, LATER = datetime(2026, 1, 8, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)
scores = st.lists(st.floats(0, 1, width=32), max_size=60)
counts = st.lists(st.integers(0, 10_000), min_size=N_BINS, max_size=N_BINS).map(tuple)
some_counts = counts.filter(any)


@given(values=scores, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_a_histogram_is_the_same_however_the_scores_are_cut(values: list[float], cuts: list[int]) -> None:
    every = np.array(values, np.float32)
    parts = np.split(every, sorted(cuts))
    assert added(histogram(part) for part in parts) == histogram(every)
    assert sum(histogram(every)) == len(values)


def test_a_bin_holds_its_lower_edge_and_both_ends_have_one() -> None:
    for place, edge in enumerate(EDGES):
        exactly = np.array([edge], np.float32)
        just_below = np.nextafter(exactly, np.float32(0))
        assert histogram(exactly)[place + 1] == 1
        assert histogram(just_below)[place] == 1
    assert histogram(np.array([0.0, 1.0], np.float32)) == (1, *[0] * (N_BINS - 2), 1)


@given(held=st.dictionaries(st.sampled_from([EARLIER, LATER]), counts))
def test_a_footer_gives_back_what_went_in(held: dict[datetime, tuple[int, ...]]) -> None:
    written = {key.encode(): value.encode() for key, value in to_footer(held).items()}
    assert from_footer(written) == held


@pytest.mark.parametrize("metadata", [None, {}, {b"batchscore.score_histograms": b'{"2026-01-08T00:00:00+00:00":[1,2]}'}])
def test_a_footer_without_histograms_or_of_other_bins_is_no_histogram(metadata: dict[bytes, bytes] | None) -> None:
    with pytest.raises(ValueError, match="histograms"):
        from_footer(metadata)


@given(a=some_counts, b=some_counts)
def test_drift_is_never_negative_never_infinite_and_the_same_both_ways(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    found, back = psi(a, b), psi(b, a)
    assert found is not None
    assert back is not None
    assert 0 <= found < float("inf")
    assert found == pytest.approx(back)


@given(a=some_counts)
def test_scores_have_not_drifted_from_themselves(a: tuple[int, ...]) -> None:
    assert psi(a, a) == 0


def test_drift_is_the_sum_over_bins_of_the_textbook() -> None:
    half = N_BINS // 2
    a, b = (3,) * half + (1,) * half, (1,) * half + (3,) * half
    p, q = 3.5 / (4 * half + half), 1.5 / (4 * half + half)
    assert psi(a, b) == pytest.approx(2 * half * (p - q) * np.log(p / q))


def test_without_scores_there_is_no_drift() -> None:
    nothing, something = (0,) * N_BINS, (1,) * N_BINS
    assert psi(nothing, something) is None
    assert psi(something, nothing) is None
    assert in_words(None) == "no scores to compare"
    assert drift_against("r-1", {}, {EARLIER: something}) is None
    assert drift_against("r-1", {EARLIER: something}, {}) is None


@pytest.mark.parametrize(("value", "words"), [(0.0, "stable"), (0.0999, "stable"), (0.1, "moved"), (0.25, "moved much")])
def test_drift_is_said_in_words(value: float, words: str) -> None:
    assert in_words(value) == words


def test_an_as_of_is_compared_with_itself_and_the_latest_with_the_latest_where_they_differ() -> None:
    ones, twos = (1,) * N_BINS, (2, *[1] * (N_BINS - 1))
    same = drift_against("r-1", {EARLIER: ones, LATER: ones}, {EARLIER: twos, LATER: ones})
    assert same is not None
    assert [(line.as_of, line.against_as_of, line.psi == 0) for line in same.lines] == [
        (EARLIER, EARLIER, False),
        (LATER, LATER, True),
    ]
    moved_on = drift_against("r-1", {LATER: ones}, {EARLIER: twos})
    assert moved_on is not None
    assert (moved_on.latest.as_of, moved_on.latest.against_as_of) == (LATER, EARLIER)
    assert moved_on.against_counts == twos


@given(threshold=st.floats(0, 1))
def test_a_threshold_stands_in_the_bin_of_its_score(threshold: float) -> None:
    place = threshold_at(threshold)
    assert 0 <= place <= N_BINS
    low, high = (0.0, *EDGES)[min(int(place), N_BINS - 1)], (*EDGES, 1.0)[min(int(place), N_BINS - 1)]
    assert low - 0.01 * (high - low) <= threshold <= high + 0.01 * (high - low)
