"""Coverage: when a table begins as of a date, however its rollups are cut, and which accounts reach the floor."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.errors import Refused
from batchscore.features.coverage import begins, coverage_at, is_covered
from batchscore.features.feature_set import FeatureSet
from batchscore.features.rollup import roll_up
from tests.unit.features.small_log import DAY, MOMENT, START, feature_set, log

WEEK = "n: {count: mails, window: 7d}\never: {count: mails}"


def floored(floor: float) -> FeatureSet:
    return feature_set(WEEK, grain=f"1d\ncoverage: {floor}")


def began(folder: Path, pieces: list[pa.Table], days: list[int], *, row_group: int = 1_000) -> tuple[datetime | None, ...]:
    paths = []
    for number, piece in enumerate(pieces):
        paths.append(folder / f"{number}.parquet")
        pq.write_table(roll_up(piece, feature_set(WEEK), "mails"), paths[-1], row_group_size=row_group)
    return begins(paths, [START + day * DAY for day in days], DAY)


def test_a_table_begins_with_the_first_event_that_was_known_by_then(tmp_path: Path) -> None:
    events = log(3, 5, 1, known=[3, 5, 8])  # an older event comes to light on day 8
    assert began(tmp_path, [events], [2, 3, 4, 8, 9]) == (None, None, START + 3 * DAY, START + 3 * DAY, START + 1 * DAY)


def test_a_table_without_events_never_begins(tmp_path: Path) -> None:
    assert began(tmp_path, [], [5]) == (None,)
    assert began(tmp_path, [log()], [5]) == (None,)


days_of_events = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days_of_events, st.lists(st.integers(0, 12), max_size=3), st.integers(1, 4))
def test_it_begins_at_the_same_moment_however_its_rollups_are_cut(
    tmp_path: Path, events: list[tuple[int, int]], cuts: list[int], row_group: int
) -> None:
    days = [0, 1, 4, 7, 13, 20]
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    pieces = [
        log(*(day for day, _ in piece), known=[day + late for day, late in piece])
        for piece in (events[low:high] for low, high in pairwise(edges))
    ]
    known = [[day for day, late in events if day + late < as_of] for as_of in days]
    expected = tuple(START + min(held) * DAY if held else None for held in known)
    assert began(tmp_path, pieces, days, row_group=row_group) == expected


def covered(floor: float, created: list[datetime | None], first: datetime | None, day: int) -> list[bool]:
    accounts = pa.table({"account_id": pa.array(range(len(created)), pa.uint64()), "created_at": pa.array(created, MOMENT)})
    return list(is_covered(accounts, {"mails": first}, START + day * DAY, floored(floor)))


def test_an_old_account_needs_its_share_of_the_window_and_a_new_one_that_of_its_life() -> None:
    old, new, young = START - 100 * DAY, START + 2 * DAY, START
    created = [old, new, young, None]
    assert covered(0.5, created, START + 1 * DAY, 4) == [False, True, True, False]  # 3 of 7 days; all; 3 of 4; as an old one
    assert covered(0.5, created, START + 1 * DAY, 5) == [True] * 4  # 4 of 7 days
    assert covered(0.8, created, START + 1 * DAY, 4) == [False, True, False, False]


def test_where_nothing_says_when_accounts_came_each_is_an_old_one() -> None:
    accounts = pa.table({"account_id": pa.array([1, 2], pa.uint64())})
    for day, enough in ((4, False), (5, True)):
        found = is_covered(accounts, {"mails": START + 1 * DAY}, START + day * DAY, floored(0.5))
        assert found.tolist() == [enough] * 2


def test_the_floor_itself_is_enough() -> None:
    hour = timedelta(hours=1)
    assert covered(0.5, [START - 50 * DAY], START + 12 * hour, 4) == [True]  # 3.5 of 7 days
    assert covered(0.5, [START - 50 * DAY], START + 13 * hour, 4) == [False]


def test_a_table_of_which_nothing_is_known_covers_nobody() -> None:
    assert covered(0.01, [START - 50 * DAY, START + 3 * DAY], None, 4) == [False, False]


def test_without_a_floor_everybody_is_covered_and_whole_histories_have_no_window() -> None:
    accounts = pa.table({"account_id": pa.array([1], pa.uint64())})
    assert is_covered(accounts, {"mails": None}, START, feature_set(WEEK)).tolist() == [True]
    whole = feature_set("ever: {count: mails}").model_copy(update={"coverage": 1.0})
    assert is_covered(accounts, {"mails": None}, START, whole).tolist() == [True]
    assert coverage_at(None, START, None) == 1.0


def test_coverage_is_a_share_also_where_a_clock_ran_ahead() -> None:
    assert [coverage_at(START, START + day * DAY, 4 * DAY) for day in (-1, 0, 1, 4, 9)] == [0.0, 0.0, 0.25, 1.0, 1.0]
    assert coverage_at(None, START, 4 * DAY) == 0.0


def test_the_floor_is_no_part_of_what_features_are_but_is_kept_with_them() -> None:
    with_floor, without = floored(0.5), feature_set(WEEK)
    assert with_floor.digest == without.digest
    assert FeatureSet.thaw(with_floor.frozen_json()) == with_floor
    assert "coverage" not in without.frozen_json()


@pytest.mark.parametrize("floor", ["0", "1.5", "-1", "'0,5'"])
def test_a_floor_that_is_no_share_is_refused(floor: str) -> None:
    with pytest.raises(Refused, match="coverage"):
        feature_set(WEEK, grain=f"1d\ncoverage: {floor}")
