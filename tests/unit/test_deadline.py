"""A time of day means its first after the run was opened, by the clocks of a zone, on days with 23 and 25 hours too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.deadline import lateness_told, parse_deadline


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("text", "opened", "means"),
    [
        ("06:00", "2026-11-26T22:00Z", "2026-11-27T06:00Z"),
        ("06:00", "2026-11-26T05:59Z", "2026-11-26T06:00Z"),
        ("06:00", "2026-11-26T06:00Z", "2026-11-27T06:00Z"),
        ("06:00 Europe/Berlin", "2026-11-26T22:00Z", "2026-11-27T05:00Z"),
        ("06:00 Europe/Berlin", "2026-03-28T22:00Z", "2026-03-29T04:00Z"),  # clocks went forward in between
        ("06:00 Europe/Berlin", "2026-10-24T22:30Z", "2026-10-25T05:00Z"),  # and back
        ("02:30 Europe/Berlin", "2026-03-28T22:00Z", "2026-03-29T01:30Z"),  # which they never show on that day
        ("02:30 Europe/Berlin", "2026-10-24T22:00Z", "2026-10-25T00:30Z"),  # twice: the first
        ("2026-11-27T06:00:00+01:00", "2026-11-28T00:00Z", "2026-11-27T05:00Z"),  # a moment, even one that is past
    ],
)
def test_a_deadline_is_the_first_such_moment_after_the_run_was_opened(text: str, opened: str, means: str) -> None:
    assert parse_deadline(text).after(moment(opened)) == moment(means)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    st.times(),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_it_lies_within_the_day_that_follows_and_clocks_show_it_then(opened: datetime, clock: object, zone: str) -> None:
    text = f"{clock:%H:%M}"
    opened = opened.replace(tzinfo=UTC)
    found = parse_deadline(f"{text} {zone}").after(opened)
    assert timedelta(0) < found - opened <= timedelta(hours=26)
    local = found.astimezone(ZoneInfo(zone))
    skipped = local.utcoffset() != (found - timedelta(hours=2)).astimezone(ZoneInfo(zone)).utcoffset()
    assert skipped or f"{local:%H:%M}" == text


@pytest.mark.parametrize(
    "text", ["6:00", "24:00", "06:00 Nowhere/Here", "06:00 ../../etc/passwd", "2026-11-27T06:00:00", "soon", ""]
)
def test_what_is_no_deadline_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="→ write"):
        parse_deadline(text)


def test_lateness_is_told_in_minutes_beside_the_deadline() -> None:
    at = moment("2026-11-27T06:00Z")
    late = lateness_told(at, at + timedelta(minutes=41), over=False)
    assert late == "deadline 2026-11-27 06:00 UTC; expected 2026-11-27 06:41 UTC, 41 min LATE"
    assert lateness_told(at, at - timedelta(minutes=5), over=True).endswith("over 2026-11-27 05:55 UTC, 5 min before")
