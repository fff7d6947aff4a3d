"""Two runs compared: flags by account, scores by shape."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchscore.report.difference import FlagPair, flag_pairs, score_pairs
from batchscore.report.histogram import N_BINS

EARLIER, LATER = datetime(2026, 1, 8, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)
HUGE = 2**64 - 1


def decided(flags: list[tuple[datetime, int]]) -> pa.Table:
    """Flags as (as-of, account), ranked as they come."""
    return pa.table(
        {
            "account_id": pa.array([account for _, account in flags], pa.uint64()),
            "as_of": pa.array([as_of for as_of, _ in flags], pa.timestamp("us", tz="UTC")),
            "rank": pa.array(range(1, len(flags) + 1), pa.int64()),
        }
    )


def test_flags_are_new_dropped_or_moved() -> None:
    a = decided([(EARLIER, HUGE), (EARLIER, HUGE - 1), (EARLIER, 7)])
    b = decided([(EARLIER, HUGE), (EARLIER, 7), (EARLIER, 8), (LATER, 9)])
    assert list(flag_pairs(a, b)) == [
        FlagPair(as_of=EARLIER, n_a=3, n_b=3, n_new=1, n_dropped=1, n_moved=1),
        FlagPair(as_of=LATER, n_a=0, n_b=1, n_new=1, n_dropped=0, n_moved=0),
    ]


@given(ids=st.lists(st.integers(0, HUGE), unique=True, max_size=20))
def test_equal_decisions_do_not_differ(ids: list[int]) -> None:
    table = decided([(EARLIER, account) for account in ids])
    assert all((pair.n_new, pair.n_dropped, pair.n_moved) == (0, 0, 0) for pair in flag_pairs(table, table))


@given(a=st.sets(st.integers(0, 30)), b=st.sets(st.integers(0, 30)))
def test_counts_are_those_of_the_sets(a: set[int], b: set[int]) -> None:
    pairs = list(flag_pairs(decided([(LATER, account) for account in a]), decided([(LATER, account) for account in b])))
    assert sum(pair.n_new for pair in pairs) == len(b - a)
    assert sum(pair.n_dropped for pair in pairs) == len(a - b)


def test_scores_of_an_as_of_only_one_run_has_are_not_compared() -> None:
    ones = (1,) * N_BINS
    pairs = score_pairs({EARLIER: ones, LATER: ones}, {LATER: ones})
    assert [(pair.as_of, pair.n_a, pair.n_b, pair.psi) for pair in pairs] == [
        (EARLIER, N_BINS, 0, None),
        (LATER, N_BINS, N_BINS, 0.0),
    ]
