"""The input gate: which days are judged, what is usual, and what an approval covers. On tables made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.document import parse_document
from batchscore.errors import Refused
from batchscore.features.day_counts import DAYS_SCHEMA, MAX_SEGMENTS, added, count_events, count_rollup
from batchscore.features.feature_set import FeatureSet
from batchscore.features.input_gate import (
    FEWER,
    MORE,
    NO_ROWS,
    NOT_COMPLETE,
    DayCounts,
    JudgedDays,
    days_needed,
    is_silent,
    judge,
    not_approved,
)
from batchscore.features.rollup import roll_up
from batchscore.hold import Finding
from batchscore.spec import TableGate

DAY = timedelta(days=1)
EPOCH = date(1970, 1, 1)
START = date(2026, 1, 1)  # a Thursday
AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES = """
feature_set: gated
version: 1
account_id: integer
accounts: {table: accounts, key: id}
events: [{table: mails, key: id, event_at: at, known_at: known, skew: 1d}]
features:
  n_7d: {count: mails, window: 7d}
  n_28d: {count: mails, window: 28d}
"""
SET = parse_document(FEATURES, FeatureSet, name="features.yaml")
Known = tuple[str | None, date, date, int]  # segment, day, day it was known on, n


def counts_of(rows: Sequence[Known]) -> DayCounts:
    held = [
        {"segment": segment, "event_day": (day - EPOCH).days, "known_grain": (known - EPOCH).days, "n": n}
        for segment, day, known, n in rows
    ]
    return DayCounts(pa.Table.from_pylist(held, DAYS_SCHEMA), DAY)


def logged(n_of: Mapping[date, int], *, usual: int = 1_000, until: date = date(2026, 3, 1)) -> list[Known]:
    """``usual`` rows each day, known on that day, but where ``n_of`` says otherwise."""
    days = [START + number * DAY for number in range((until - START).days)]
    return [(None, day, day, n) for day in days if (n := n_of.get(day, usual))]


def judged(rows: Sequence[Known], gate: TableGate, *as_ofs: datetime, incomplete: tuple[date, ...] = ()) -> JudgedDays:
    return judge("mails", gate, counts_of(rows), days_needed(as_ofs or [AS_OF], SET, "mails"), incomplete)


def found(rows: Sequence[Known], factor: float | None = 2.0, *as_ofs: datetime) -> list[tuple[date | None, str]]:
    return [(finding.day, finding.what) for finding in judged(rows, TableGate(factor=factor), *as_ofs).findings]


LAST = AS_OF.date() - DAY


@pytest.mark.parametrize(
    ("n", "what"), [(0, NO_ROWS), (1, FEWER), (499, FEWER), (500, None), (2_000, None), (2_001, MORE), (40_000, MORE)]
)
def test_a_day_far_from_the_last_28_is_found(n: int, what: str | None) -> None:
    assert found(logged({LAST: n})) == ([] if what is None else [(LAST, what)])


def test_a_finding_tells_rows_and_the_usual_range() -> None:
    (finding,) = judged(logged({LAST: 7}), TableGate(factor=2)).findings
    assert finding == Finding(of="mails", day=LAST, n=7, low=500, high=2_000, what=FEWER)


def test_without_a_factor_only_missing_days_are_found() -> None:
    assert found(logged({LAST: 1, LAST - DAY: 0}), None) == [(LAST - DAY, NO_ROWS)]


def test_a_hole_anywhere_in_the_windows_is_found_and_one_before_them_is_not() -> None:
    hole = AS_OF.date() - 28 * DAY
    assert found(logged({hole: 0}), None) == [(hole, NO_ROWS)]
    assert found(logged({hole - DAY: 0}), None) == []


def test_one_bad_day_among_the_28_moves_nothing() -> None:
    before = {LAST - 3 * DAY: 5}
    assert found(logged(before | {LAST: 499}))[-1] == (LAST, FEWER)
    assert found(logged(before | {LAST: 1_000})) == [(LAST - 3 * DAY, FEWER)]


def test_weekends_are_compared_with_weekends() -> None:
    quiet = {START + n * DAY: 300 for n in range(59) if (START + n * DAY).weekday() >= 5}
    assert found(logged(quiet)) == []  # the last day is a Saturday
    sunday = max(day for day in quiet if day.weekday() == 6)
    assert found(logged(quiet | {sunday: 1_000})) == [(sunday, MORE)]
    closed = dict.fromkeys(quiet, 0)
    assert found(logged(closed)) == [], "a table without rows at weekends is as it always is"


def test_a_table_that_always_moves_much_does_not_alarm() -> None:
    wild = {START + n * DAY: 1_000 * 4 ** (n % 3) for n in range(59)}
    assert found(logged(wild)) == []


def test_a_day_is_compared_at_the_age_it_has_now() -> None:
    """Half of each day's mails become known two days later: the newest day has only the first half, as every day had."""
    rows = [(None, day, known, 500) for _, day, known, _ in logged({})]
    late = [(segment, day, day + 2 * DAY, n) for segment, day, _, n in rows]
    assert found(rows + late, 1.2) == []
    assert found([row for row in rows if row[1] != LAST] + late + [(None, LAST, LAST, 300)], 1.2) == [(LAST, FEWER)]


def test_an_as_of_within_a_day_judges_the_days_that_are_over() -> None:
    """Six hours into 1 March: 28 February is judged, as it and the days before it were known six hours after their end."""
    as_of = AS_OF + timedelta(hours=6)
    hourly = parse_document(FEATURES.replace("version: 1", "version: 1\ngrain: 1h"), FeatureSet, name="features.yaml")
    hours = [
        {"segment": None, "event_day": (day - EPOCH).days, "known_grain": ((day - EPOCH).days + 1) * 24 + late, "n": 500}
        for _, day, _, _ in logged({})
        for late in (5, 6)
        if (day, late) != (LAST, 5)
    ]
    counts = DayCounts(pa.Table.from_pylist(hours, DAYS_SCHEMA), timedelta(hours=1))
    (finding,) = judge("mails", TableGate(factor=2), counts, days_needed([as_of], hourly, "mails")).findings
    assert (finding.day, finding.n, finding.low, finding.high) == (LAST, 0, 250, 1_000)


def test_a_young_table_passes_and_is_told() -> None:
    young = [row for row in logged({}) if row[1] >= AS_OF.date() - 6 * DAY]
    found_young = judged(young, TableGate(factor=2))
    assert (found_young.findings, found_young.n_days, found_young.n_new) == ((), 5, 5)
    assert [finding.what for finding in judged([row for row in young if row[1] != LAST], TableGate()).findings] == [NO_ROWS]


def test_a_table_without_any_event_is_one_finding() -> None:
    assert found([]) == [(LAST, NO_ROWS)]


def test_a_day_without_its_marker_is_found_whatever_its_rows() -> None:
    findings = judged(logged({}), TableGate(marker="%Y-%m-%d/_SUCCESS"), incomplete=(LAST, date(2025, 12, 30))).findings
    assert [(finding.day, finding.what, finding.n) for finding in findings] == [(LAST, NOT_COMPLETE, 1_000)]


def test_a_backfill_judges_each_day_once_and_as_of_the_first_that_needs_it() -> None:
    as_ofs = [datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 3, tzinfo=UTC), datetime(2026, 2, 10, tzinfo=UTC)]
    needed = days_needed(reversed(as_ofs), SET, "mails")
    assert list(needed) == [date(2026, 1, 4) + n * DAY for n in range(37)]
    assert {as_of: sum(held == as_of for held in needed.values()) for as_of in as_ofs} == dict(
        zip(as_ofs, (28, 2, 7), strict=True)
    )


def test_a_segment_that_stops_is_found_where_the_whole_is_as_usual() -> None:
    rows = [row for _, day, known, _ in logged({}) for row in (("big", day, known, 5_000), ("small", day, known, 100))]
    rows.remove(("small", LAST, LAST, 100))
    (finding,) = judged(rows, TableGate(factor=2, by="server")).findings
    assert (finding.of, finding.n, finding.what) == ("mails, server small", 0, NO_ROWS)
    assert judged(rows, TableGate(factor=2)).findings == ()


@pytest.mark.parametrize(
    ("shown", "now", "held"),
    [
        (Finding(of="mails", day=LAST, n=100, low=500, high=2_000, what=FEWER), 105, False),
        (Finding(of="mails", day=LAST, n=100, low=500, high=2_000, what=FEWER), 40, True),
        (Finding(of="mails", day=LAST, n=4_000, low=500, high=2_000, what=MORE), 4_040, False),
        (Finding(of="mails", day=LAST, n=4_000, low=500, high=2_000, what=MORE), 9_000, True),
        (Finding(of="mails", day=LAST, n=900, low=500, high=2_000, what=NOT_COMPLETE), 900, False),
        (Finding(of="mails", day=LAST, n=900, low=500, high=2_000, what=NOT_COMPLETE), 500, True),
    ],
)
def test_what_was_approved_holds_again_only_when_it_is_worse(shown: Finding, now: int, held: bool) -> None:
    finding = shown.model_copy(update={"n": now})
    assert bool(not_approved([finding], [shown])) is held
    for other in ({"of": "logins"}, {"day": LAST - DAY}, {"what": NO_ROWS}):
        assert not_approved([finding.model_copy(update=other)], [shown])


def test_a_table_is_silent_once_its_shortest_window_holds_nothing() -> None:
    counts = counts_of(logged({}, until=date(2026, 2, 21)))  # the last event is of 20 February
    assert counts.last(AS_OF) == date(2026, 2, 20)
    assert is_silent(counts.last(AS_OF), AS_OF, SET, "mails")
    assert not is_silent(counts.last(AS_OF), datetime(2026, 2, 27, tzinfo=UTC), SET, "mails")
    assert is_silent(None, AS_OF, SET, "mails")


events = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 96), st.integers(0, 72), st.sampled_from("abc")), max_size=40)


@given(events, st.lists(st.integers(0, 3), max_size=40))
def test_day_counts_are_the_same_however_events_are_cut(log: list[tuple[int, int, int, str]], cut: list[int]) -> None:
    """Counted from rollups or from events, in one piece or in four: the events of a day that were known by a moment."""
    epoch = datetime(2026, 1, 1, tzinfo=UTC)
    at = [epoch + timedelta(hours=hours) for _, hours, _, _ in log]
    known = [moment + timedelta(hours=hours) for moment, (_, _, hours, _) in zip(at, log, strict=True)]
    moments = pa.timestamp("us", "UTC")
    table = pa.table(
        {
            "account_id": pa.array([account for account, *_ in log], pa.uint64()),
            "event_at": pa.array(at, moments),
            "known_at": pa.array(known, moments),
            "server": pa.array([server for *_, server in log], pa.string()),
        }
    )
    places = [(cut[place] if place < len(cut) else 0) for place in range(len(log))]
    parts = [table.filter(pa.array([place == part for place in places], pa.bool_())) for part in range(4)]
    whole = added([count_rollup(roll_up(table, SET, "mails"), DAY)], where="")
    assert added([count_rollup(roll_up(part, SET, "mails"), DAY) for part in parts], where="").equals(whole)
    by_server = added([count_events(table, DAY, "server")], where="")
    assert added([count_events(part, DAY, "server") for part in parts], where="").equals(by_server)
    days = [date(2026, 1, 1) + number * DAY for number in range(-1, 6)]
    for age in (timedelta(0), DAY, 9 * DAY):
        ends = [datetime(day.year, day.month, day.day, tzinfo=UTC) + DAY + age for day in days]
        n = [
            sum(one.date() == day and seen < end for one, seen in zip(at, known, strict=True))
            for day, end in zip(days, ends, strict=True)
        ]
        for counts in (DayCounts(whole, DAY), DayCounts(by_server, DAY)):
            assert counts.n(days, age, counts.segments).tolist() == n


def test_a_column_of_many_values_is_no_segment() -> None:
    many = [{"segment": f"s{n}", "event_day": 0, "known_grain": 0, "n": 1} for n in range(MAX_SEGMENTS + 1)]
    with pytest.raises(Refused, match=r"more than 100 values.*\[gate of mails\]"):
        added([pa.Table.from_pylist(many, DAYS_SCHEMA)], where="gate of mails")
