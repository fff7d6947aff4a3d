"""Flags are counted by date, segment and reason; a column that names accounts is not shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from batchscore.flag import REASONS, FlagState, Reason
from batchscore.report.flags import MAX_SEGMENTS, count_flags
from batchscore.report.model import Flags

EARLIER, LATER = datetime(2026, 1, 8, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)
MOMENT = pa.timestamp("us", tz="UTC")
Row = tuple[datetime, str | None, dict[str, float]]


def count(
    *rows: Row, segment: str | None = "plan", explained: int | None = None, states: dict[FlagState, int] | None = None
) -> Flags:
    """Flags as (as-of, segment, contribution by code); those of LATER are to be released."""
    as_ofs = pa.array([as_of for as_of, _, _ in rows], MOMENT)
    decided = pa.table({"as_of": as_ofs, "release": pa.array([as_of == LATER for as_of, _, _ in rows], pa.bool_())})
    reasons = [
        REASONS.dump_json(tuple(Reason(code=code, sentence="4 mails", contribution=by) for code, by in codes.items())).decode()
        for _, _, codes in rows
    ]
    table = pa.table({"as_of": as_ofs, "reasons": pa.array(reasons, pa.string()), "_segment": [group for _, group, _ in rows]})
    table = table.cast(pa.schema([("as_of", MOMENT), ("reasons", pa.string()), ("_segment", pa.string())]))
    tables = [table.slice(0, explained)] if explained is not None else [table.slice(0, 1), table.slice(1)]
    return count_flags(decided, tables, segment=segment, sentences={"burst": "… mails in a week"}, states=states or {})


def test_flags_are_counted_by_date_and_reasons_speak_only_where_they_lean_towards_abuse() -> None:
    flags = count(
        (EARLIER, "free", {"burst": 2.0, "age": -1.0}),
        (LATER, "free", {"age": 1.5, "burst": 0.5}),
        (LATER, None, {"burst": 1.0}),
    )
    assert [(date.as_of, date.n_selected, date.n_to_release) for date in flags.dates] == [(EARLIER, 1, 0), (LATER, 2, 2)]
    assert [(code.code, code.n_flags, code.n_first, code.sentence) for code in flags.reasons] == [
        ("burst", 3, 2, "… mails in a week"),
        ("age", 1, 1, ""),
    ]
    assert (flags.n_selected, flags.n_to_release, flags.n_explained) == (3, 2, 3)


def test_flags_are_counted_by_segment_and_accounts_in_none_are_a_segment_too() -> None:
    segments = count((EARLIER, "free", {}), (LATER, "free", {"burst": 1.0}), (LATER, None, {})).segments
    assert segments is not None
    assert [(group.segment, group.n_selected, group.n_to_release) for group in segments.shown] == [("free", 2, 1), (None, 1, 1)]
    assert segments.shown[0].reasons[0].code == "burst"


def test_without_a_segment_in_the_spec_none_is_told() -> None:
    assert count((LATER, None, {}), segment=None).segments is None


def test_the_largest_segments_are_shown_and_the_others_counted_together() -> None:
    rows: list[Row] = [(LATER, f"s{group:02}", {}) for group in range(MAX_SEGMENTS + 3) for _ in range(2)]
    segments = count(*rows, (LATER, "s14", {})).segments
    assert segments is not None
    assert len(segments.shown) == MAX_SEGMENTS
    assert segments.shown[0].segment == "s14"
    assert (segments.n_others, segments.n_selected_in_others) == (3, 6)


def test_a_column_with_a_value_for_nearly_every_flag_is_withheld() -> None:
    rows: list[Row] = [(LATER, f"anna{number}@example.org", {}) for number in range(12)]
    segments = count(*rows).segments
    assert segments is not None
    assert segments.withheld
    assert segments.shown == ()
    assert "example.org" not in segments.model_dump_json()


def test_before_reasons_are_made_flags_are_counted_and_nothing_is_explained() -> None:
    flags = count((EARLIER, "free", {"burst": 1.0}), (LATER, "free", {}), explained=0)
    assert (flags.n_selected, flags.n_explained, flags.reasons, flags.segments) == (2, 0, (), None)


def test_overtaken_flags_are_not_counted_as_released() -> None:
    flags = count((LATER, "free", {}), states={FlagState.OPEN: 3, FlagState.OVERTAKEN: 2, FlagState.CLEARED: 1})
    assert (flags.n_released, flags.n_overtaken) == (4, 2)


def test_a_run_without_a_flag_is_counted_too() -> None:
    flags = count()
    assert (flags.n_selected, flags.dates, flags.segments) == (0, (), None)
