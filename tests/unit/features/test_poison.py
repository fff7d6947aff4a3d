"""The leak guard poisons everything after the as-of and nothing before it, and sees a feature that looked ahead."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.features.definitions import EPOCH
from batchscore.features.frame import make_frame
from batchscore.features.poison import are_equal, poisoned, poisoned_accounts
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from tests.unit.features.small_log import DAY, MOMENT, START, feature_set, log

FEATURES = feature_set(
    "n: {count: mails, window: 5d}\ns: {std: mails.b}\nl: {last: mails.b}\nf: {first: mails.b, window: 5d}\n"
    "d: {distinct: mails.b}\nt: {top_share: mails.b, window: 5d}\nq: {time_since: mails}\na: {days_active: mails}"
)
ACCOUNTS = pa.table({"account_id": pa.array([1, 2], pa.uint64())})


def frame_of(rollup: pa.Table, as_of: datetime) -> pa.Table:
    prepared = prepare(ACCOUNTS["account_id"].combine_chunks(), rollup, FEATURES, "mails")
    return make_frame(ACCOUNTS, {"mails": prepared}, as_of, FEATURES)


MAILS = st.lists(
    st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 40), st.integers(0, 12), st.none() | st.integers(-9, 9)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=20, deadline=None)
@given(MAILS, st.integers(0, 14))
def test_no_feature_sees_what_is_poisoned(mails: list[tuple[int, int, int, int | None]], day: int) -> None:
    ids, at, late, sizes = zip(*mails, strict=True)
    days = [quarter / 4 for quarter in at]
    known = [moment + quarter / 4 for moment, quarter in zip(days, late, strict=True)]
    rollup = roll_up(log(*days, ids=ids, known=known, b=pa.array(sizes, pa.int64())), FEATURES, "mails")
    as_of = START + day * DAY
    changed = poisoned(rollup, as_of, FEATURES)
    assert are_equal(frame_of(rollup, as_of), frame_of(changed, as_of))
    later = np.maximum(rollup["event_grain"].to_numpy(), rollup["known_grain"].to_numpy()) >= (as_of - EPOCH) // DAY
    assert len(changed) >= 2 * int((~later).sum())


@pytest.mark.parametrize("days", [1, 30])
def test_a_feature_that_looks_ahead_is_seen(days: int) -> None:
    rollup = roll_up(log(1.0, 4.5, 6.0, 7.0, b=pa.array([1, 2, 3, 4])), FEATURES, "mails")
    as_of, ahead = START + 5 * DAY, START + (5 + days) * DAY
    assert not are_equal(frame_of(rollup, ahead), frame_of(poisoned(rollup, as_of, FEATURES), ahead))


def test_that_an_account_will_be_deleted_is_not_known_before() -> None:
    deleted = [START - DAY, START, START + timedelta(microseconds=1), None]
    accounts = pa.table({"account_id": pa.array(range(4), pa.uint64()), "deleted_at": pa.array(deleted, MOMENT)})
    declared = feature_set("x: {age: created_at}", accounts=", deleted_at: gone").accounts
    assert poisoned_accounts(accounts, START, declared)["deleted_at"].to_pylist() == [START - DAY, START, None, None]
    assert poisoned_accounts(ACCOUNTS, START, FEATURES.accounts) is ACCOUNTS


def test_frames_are_equal_by_their_bits() -> None:
    one = pa.table({"x": [1.0, float("nan")], "y": pa.array([1, None], pa.int8())})
    assert are_equal(one, one)
    assert not are_equal(one, pa.table({"x": [1.0, float("nan")], "y": pa.array([1, 0], pa.int8())}))
    assert not are_equal(pa.table({"x": [0.0]}), pa.table({"x": [-0.0]}))
    assert not are_equal(one, one.slice(1))
