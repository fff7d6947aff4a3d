"""Times are exact in UTC from every unit and zone, rejected beyond years 1 to 9999, refused where they would be a guess."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import BatchscoreError, PartitionError, Refused
from batchscore.features.tables import AccountsTable, EventsTable, TimeColumn
from batchscore.sources.canonical import Place, canonical_accounts, canonical_events
from batchscore.sources.utc_times import FIRST_US, LAST_US, to_utc

AWARE, ZONED = TimeColumn(column="at"), TimeColumn(column="at", zone="Europe/Berlin")
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def us(values: pa.Array, time: TimeColumn) -> list[int | None]:
    moments, _ = to_utc(values, time, "mails: at")
    assert moments.type == pa.timestamp("us", "UTC")
    found: list[int | None] = moments.cast(pa.int64()).to_pylist()
    return found


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**11), 10**13), max_size=8),
    unit=st.sampled_from(list(PER_SECOND)),
    as_integer=st.booleans(),
)
def test_every_integer_and_timestamp_is_exact_or_beyond(numbers: list[int | None], unit: Any, as_integer: bool) -> None:
    integers = pa.array(numbers, pa.int64())
    values = integers if as_integer else integers.view(pa.timestamp(unit, "Asia/Kathmandu"))
    moments, beyond = to_utc(values, TimeColumn(column="at", unit=unit if as_integer else None), "mails: at")
    exact = [None if number is None else number * 10**6 // PER_SECOND[unit] for number in numbers]
    inside = [number is not None and FIRST_US <= number <= LAST_US for number in exact]
    wanted = [number if good else None for number, good in zip(exact, inside, strict=True)]
    assert moments.cast(pa.int64()).to_pylist() == wanted
    assert beyond.tolist() == [number is not None and not good for number, good in zip(exact, inside, strict=True)]


MOMENTS = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(102, 3, 4, 5, 6, 7, 8, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    datetime(2500, 1, 1, tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("zone", ["UTC", "+05:45", "America/New_York"])
def test_a_moment_of_any_age_is_exact_in_any_zone(moment: datetime, zone: str) -> None:
    wanted = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert us(pa.array([wanted]).cast(pa.timestamp("us", zone)), AWARE) == [wanted]


def test_milliseconds_since_the_year_0_are_rejected_or_exact_never_wrapped() -> None:
    since_year_0 = 62_167_219_200_000 + 1_700_000_000_000
    moments, beyond = to_utc(pa.array([since_year_0, 2**62], pa.int64()), TimeColumn(column="at", unit="ms"), "x")
    assert moments.cast(pa.int64()).to_pylist() == [since_year_0 * 1000, None]
    assert beyond.tolist() == [False, True]


@pytest.mark.parametrize("kind", [pa.uint64(), pa.uint32(), pa.int32(), pa.int8()])
def test_integers_of_every_width_are_times(kind: pa.DataType) -> None:
    assert us(pa.array([5, None], kind), TimeColumn(column="at", unit="s")) == [5_000_000, None]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_unsigned_integers_beyond_63_bits_do_not_wrap(unit: Any) -> None:
    moments, beyond = to_utc(pa.array([2**64 - 1, 2**63], pa.uint64()), TimeColumn(column="at", unit=unit), "x")
    exact = [number // 1000 if unit == "ns" else None for number in (2**64 - 1, 2**63)]
    assert moments.cast(pa.int64()).to_pylist() == exact
    assert beyond.tolist() == [unit != "ns"] * 2


@settings(max_examples=60, deadline=None)
@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)) | st.datetimes(datetime(2037, 6, 1), datetime(2040, 1, 1)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
)
def test_a_naive_time_is_read_by_its_declared_zone_or_refused_where_that_is_a_guess(naive: datetime, zone: str) -> None:
    time = TimeColumn(column="at", zone=zone)
    first, second = (naive.replace(tzinfo=ZoneInfo(zone), fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():  # in a gap or a fold
        with pytest.raises(PartitionError):
            us(pa.array([naive], pa.timestamp("us")), time)
        return
    assert us(pa.array([naive], pa.timestamp("us")), time) == [
        (first - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    ]


@pytest.mark.parametrize("local", ["2025-03-30 02:30:00", "2025-10-26 02:30:00", "2045-03-26 02:30:00", "2045-10-29 02:30:00"])
def test_a_local_time_that_is_missing_or_doubled_stops_the_partition_and_is_not_told(local: str) -> None:
    with pytest.raises(PartitionError) as caught:
        us(pa.array([datetime.fromisoformat(local)], pa.timestamp("us")), ZONED)
    assert caught.value.reason == "naive_timestamp"
    assert local[:10] not in str(caught.value)


def test_a_zone_that_nobody_knows_is_refused_as_such() -> None:
    with pytest.raises(Refused) as caught:
        us(pa.array([0], pa.timestamp("us")), TimeColumn(column="at", zone="Mars/Olympus"))
    assert caught.value.reason == "naive_timestamp"
    assert "Mars/Olympus" in str(caught.value)


def test_a_placeholder_far_in_the_future_is_read_among_others_by_the_zones_own_rules() -> None:
    times = [datetime(2045, 7, 1), datetime(2025, 7, 1), None, datetime(9999, 12, 31), datetime(9999, 12, 31)]
    wanted = [datetime(2045, 6, 30, 22), datetime(2025, 6, 30, 22), None, datetime(9999, 12, 30, 23), datetime(9999, 12, 30, 23)]
    found = us(pa.array(times, pa.timestamp("us")), ZONED)
    assert found == us(pa.array(wanted, pa.timestamp("us")), TimeColumn(column="at", zone="UTC"))


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_its_first_moment_in_the_declared_zone(kind: pa.DataType) -> None:
    dates = pa.array([datetime(2025, 7, 1).date(), None], pa.date32()).cast(kind)
    assert us(dates, ZONED) == [int(datetime(2025, 6, 30, 22, tzinfo=UTC).timestamp()) * 10**6, None]


@pytest.mark.parametrize("number", [2**31 - 1, -(2**31), 2_932_897, -719_163])
def test_a_date_of_any_age_is_exact_or_rejected(number: int) -> None:
    moments, beyond = to_utc(pa.array([number], pa.int32()).view(pa.date32()), TimeColumn(column="at", zone="UTC"), "x")
    inside = FIRST_US <= number * 86_400_000_000 <= LAST_US
    assert moments.cast(pa.int64()).to_pylist() == [number * 86_400_000_000 if inside else None]
    assert beyond.tolist() == [not inside]


@pytest.mark.parametrize("number", [2**62, -(2**62), 10**15, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+14:00", "-12:00"])
@pytest.mark.parametrize("unit", ["s", "ms"])
def test_a_naive_time_far_beyond_is_rejected_not_wrapped(number: int, unit: str, zone: str) -> None:
    moments, beyond = to_utc(pa.array([number]).cast(pa.timestamp(unit)), TimeColumn(column="at", zone=zone), "x")
    assert (moments.cast(pa.int64()).to_pylist(), beyond.tolist()) == ([None], [True])


@pytest.mark.parametrize(
    ("values", "time", "reason"),
    [
        (pa.array([1]), AWARE, "column_type"),
        (pa.array([1.5]), TimeColumn(column="at", unit="s"), "column_type"),
        (pa.array(["2025-01-01"]), ZONED, "column_type"),
        (pa.array([1], pa.timestamp("us")), AWARE, "naive_timestamp"),
        (pa.array([1], pa.int32()).view(pa.date32()), AWARE, "naive_timestamp"),
        (pa.array([1], pa.time64("us")), ZONED, "column_type"),
        (pa.array([1], pa.duration("us")), ZONED, "column_type"),
    ],
)
def test_what_is_no_time_as_declared_is_refused(values: pa.Array, time: TimeColumn, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        us(values, time)
    assert caught.value.reason == reason


ACCOUNTS = AccountsTable(table="accounts", key="id", created_at=AWARE)
EVENTS = EventsTable(table="mails", key="id", event_at=AWARE, known_at=TimeColumn(column="known"), skew=timedelta(days=1))


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.int64(), pa.uint64()])
def test_ids_are_exact_from_every_integer_type_and_null_and_negative_ones_are_set_aside(kind: pa.DataType) -> None:
    signed = pa.types.is_signed_integer(kind)
    top = 2 ** (kind.bit_width - signed) - 1
    raw = pa.table(
        {"id": pa.array([0, None, top, -1 if signed else 1], kind), "at": pa.array([None] * 4, pa.timestamp("us", "UTC"))}
    )
    rows = canonical_accounts(raw, ACCOUNTS, [], "integer", Place("f", 100))
    assert rows.table["account_id"].to_pylist() == ([0, top] if signed else [0, top, 1])
    assert rows.rejects.to_pylist()[0] == {"file": "f", "row": 101, "code": "null_id"}
    assert [row["code"] for row in rows.rejects.to_pylist()] == ["null_id"] + ["id_range"] * signed


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_text_ids_are_exact_to_the_byte_from_every_form(kind: pa.DataType) -> None:
    words = ["", "007", " 7", "e\u0301", "\u00e9", "\U0001f600", "a\0"]
    plain = pa.array(words)
    ids = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    raw = pa.table({"id": ids, "at": pa.array([0] * len(words), pa.timestamp("us", "UTC"))})
    rows = canonical_accounts(raw, ACCOUNTS, [], "string", Place("f"))
    assert rows.table["account_id"].to_pylist() == words
    assert rows.table["account_id"].type == pa.string()


def test_a_row_with_several_faults_is_set_aside_once_under_the_first() -> None:
    moment = pa.timestamp("us", "UTC")
    raw = pa.table({"id": pa.array([None, 1, 2, 3, 4, 5]), "at": pa.array([None, None, 10**15, LAST_US + 1, 5, 6], moment),
                    "known": pa.array([None, 7, 0, 0, 5, None], moment)})  # fmt: skip
    rows = canonical_events(raw, EVENTS, [], "integer", Place("f"))
    assert [(row["row"], row["code"]) for row in rows.rejects.to_pylist()] == [
        (0, "null_id"), (3, "timestamp_range"), (1, "null_event_at"), (5, "null_known_at"), (2, "event_in_future")]  # fmt: skip
    assert rows.table["account_id"].to_pylist() == [4]


def test_the_declared_skew_is_allowed_to_the_microsecond() -> None:
    day, moment = 86_400_000_000, pa.timestamp("us", "UTC")
    raw = pa.table({"id": [1, 2], "at": pa.array([day, day + 1], moment), "known": pa.array([0, 0], moment)})
    assert canonical_events(raw, EVENTS, [], "integer", Place("f")).table["account_id"].to_pylist() == [1]


@pytest.mark.parametrize("kind", [pa.float32(), pa.decimal128(5, 0), pa.bool_(), pa.float16()])
def test_ids_that_may_have_lost_digits_are_refused(kind: pa.DataType) -> None:
    raw = pa.table({"id": pa.nulls(2, kind), "at": pa.nulls(2, pa.timestamp("us", "UTC"))})
    with pytest.raises(BatchscoreError) as caught:
        canonical_accounts(raw, ACCOUNTS, [], "integer", Place("f"))
    assert caught.value.reason == "id_physical_type"
