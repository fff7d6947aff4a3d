"""Rollups merge exactly however events are cut, never wrap a sum, and refuse what cannot be measured."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import PartitionError
from batchscore.features import rollup
from batchscore.features.rollup import merge, roll_up
from batchscore.features.rollup_columns import check_measures
from tests.unit.features.small_log import feature_set, log

ALL = feature_set(
    "n: {count: mails}\ns: {sum: mails.b}\nlo: {min: mails.b}\nhi: {max: mails.f}\nm: {mean: mails.t}\nd: {distinct: mails.d}\n"
    "q: {std: mails.t}\ntop: {top_share: mails.d}\nfirst: {first: mails.b}\nlast: {last: mails.t}",
    events=", tie: d",
)
SUM, MAX, DISTINCT = (feature_set(f"x: {{{aggregate}: mails.b}}") for aggregate in ("sum", "max", "distinct"))


def rolled(events: pa.Table, features: Any = ALL) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = roll_up(events, features, "mails").to_pylist()
    return rows


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2**53 + 1, 2**64 - 1]),
        st.sampled_from([-1.5, 0.0, 0.99, 1.0, 5.5, -700_000.0, 2_900_000.0]),  # also in the years 109 and 9965
        st.sampled_from([0.0, 0.5, 3.0]),
        st.one_of(st.none(), st.integers(-(2**45), 2**45)),
        st.one_of(st.none(), st.floats(allow_infinity=False, width=32), st.sampled_from([-0.0, float("inf")])),
        st.one_of(st.none(), st.integers(0, 40)),
    ),
    max_size=50,
)


def as_log(events: list[tuple[Any, ...]]) -> pa.Table:
    ids, days, late, whole, floats, words = (list(column) for column in zip(*events, strict=True)) if events else ([],) * 6
    return log(
        *days,
        ids=ids,
        known=[day + by for day, by in zip(days, late, strict=True)],
        b=pa.array(whole, pa.int64()),
        f=pa.array(floats, pa.float64()),
        t=pa.array([None if value is None else value % 100 for value in whole], pa.int8()),
        d=pa.array([None if word is None else f"w{word}" for word in words], pa.string()),
    )


@settings(max_examples=80, deadline=None)
@given(EVENTS, st.randoms(use_true_random=False), st.sampled_from([1, 2**62]))
def test_rollups_of_any_cut_in_any_order_merge_to_the_rollup_of_everything(
    events: list[tuple[Any, ...]], random: Random, widest: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollup, "_WIDEST", widest)  # with 1, groups are numbered as where moments lie thousands of years apart
        _merge_to_the_rollup_of_everything(events, random)


def _merge_to_the_rollup_of_everything(events: list[tuple[Any, ...]], random: Random) -> None:
    whole = roll_up(as_log(events), ALL, "mails")
    shuffled = random.sample(events, len(events))
    cuts = [0, *sorted(random.randrange(len(events) + 1) for _ in range(random.randrange(6))), len(events)]
    pieces = [roll_up(as_log(shuffled[low:high]), ALL, "mails") for low, high in pairwise(cuts)]
    random.shuffle(pieces)
    at = random.randrange(1, len(pieces) + 1)
    in_two_steps = merge([merge(pieces[:at], ALL, "mails"), *pieces[at:]], ALL, "mails")
    assert in_two_steps.equals(whole, check_metadata=True)
    assert merge(pieces, ALL, "mails").equals(whole)
    assert repr(in_two_steps.to_pylist()) == repr(whole.to_pylist())  # `equals` takes −0.0 for 0.0


def test_a_rollup_is_one_row_for_an_account_event_day_and_known_day_in_order() -> None:
    events = log(3.5, 1.0, 1.25, 1.5, ids=[1, 1, 1, 0], known=[3.5, 1.0, 1.5, 4.0], b=pa.array([1, 2, 3, 4]))
    keys = [(row["account_id"], row["event_grain"] - 20454, row["known_grain"] - 20454, row["n"]) for row in rolled(events, SUM)]
    assert keys == [(0, 1, 4, 1), (1, 1, 1, 2), (1, 3, 3, 1)]
    assert [row["b__sum"] for row in rolled(events, SUM)] == [4, 5, 1]
    assert rolled(events, SUM)[1]["last_at"] == datetime(2026, 1, 2, 6, tzinfo=UTC)


def test_days_before_1970_are_rounded_down_too() -> None:
    (row,) = rolled(log(-20454 - 0.25, b=pa.array([1])), SUM)
    assert row["event_grain"] == -1


def test_no_events_give_a_rollup_of_no_rows_with_every_column() -> None:
    empty = roll_up(as_log([]), ALL, "mails")
    assert empty.num_rows == 0
    assert empty.schema == roll_up(as_log([(1, 0.0, 0.0, 1, 1.0, 1)]), ALL, "mails").schema
    assert merge([empty, empty], ALL, "mails").equals(empty)


@pytest.mark.parametrize("column", ["last_at", "event_grain", "known_grain", "n", "b__hash", "b__sum"])
def test_a_measured_column_may_have_any_of_the_names_we_use_inside(column: str) -> None:
    features = feature_set(
        f"n: {{count: mails}}\nd: {{distinct: mails.b}}\nx: {{sum: mails.{column}}}\ny: {{max: mails.{column}}}"
    )
    plain = feature_set("n: {count: mails}\nd: {distinct: mails.b}\nx: {sum: mails.a}\ny: {max: mails.a}")
    words, numbers = pa.array(["v", "w", "v"]), pa.array([5, 6, 8])
    found = rolled(log(1.0, 1.0, 2.0, b=words, **{column: numbers}), features)
    expected = rolled(log(1.0, 1.0, 2.0, b=words, a=numbers), plain)
    renamed = [{key.replace("a__", f"{column}__") if key.startswith("a__") else key: row[key] for key in row} for row in expected]
    assert found == renamed


@pytest.mark.parametrize(
    ("numbers", "fits"),
    [
        ([2**62, 2**62 - 1], True),
        ([-(2**62), -(2**62) + 1], True),
        ([2**62, 2**62], False),
        ([-(2**63), -1], False),
        ([2**63 - 1, 1], False),
        ([2**63 - 1, -1], False),  # refused though it would fit: in parts, in another order, it would not
        ([2**63 - 1], True),
    ],
)
def test_a_sum_is_exact_or_refused_never_wrapped(numbers: list[int], fits: bool) -> None:
    events = log(*[1.0] * len(numbers), b=pa.array(numbers, pa.int64()))
    pieces = [roll_up(log(1.0, b=pa.array([number], pa.int64())), MAX, "mails") for number in numbers if number != -(2**63)]
    assert merge(pieces, MAX, "mails")["b__max"].to_pylist() == [max(numbers)]  # an extreme has no such limit
    if fits:
        assert [row["b__sum"] for row in rolled(events, SUM)] == [sum(numbers)]
        return
    with pytest.raises(PartitionError, match=r"\[b\]") as overflow:
        rolled(events, SUM)
    assert overflow.value.reason == "sum_overflow"


def test_sums_of_other_accounts_do_not_count_against_one() -> None:
    events = log(1.0, 1.0, 1.0, 2.0, ids=[1, 2, 3, 3], b=pa.array([2**62 + 5, -(2**62), 2**62, 2**62]))
    assert [row["b__sum"] for row in rolled(events, SUM)] == [2**62 + 5, -(2**62), 2**62, 2**62]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ('[[b, "==", x]]', "int64 is compared with whole numbers"),
        ('[[b, ">", 0.5]]', "int64 is compared with whole numbers"),
        ('[[b, "==", true]]', "int64 is compared with whole numbers"),
        ("[[b, in, [9223372036854775808]]]", "int64 is not compared exactly with a number as large"),
        ('[[t, ">", 3]]', "string is compared with text"),
        ('[[y, "==", 1]]', "bool is compared with true or false"),
        ('[[c, ">", 1.0e-25]]', "decimal128(9, 2) is compared with numbers of at most 19 decimals"),
        ('[[at, ">", 3]]', "timestamp[us, tz=UTC] cannot be compared"),
    ],
)
def test_a_filter_that_cannot_be_exact_is_told_at_plan(where: str, said: str) -> None:
    moment = pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    cents = pa.array([Decimal("0.10")], pa.decimal128(9, 2))
    events = log(1.0, b=pa.array([1]), t=pa.array(["x"]), y=pa.array([True]), c=cents, at=moment)
    (problem,) = check_measures(feature_set(f"x: {{count: mails, where: {where}}}"), "mails", events.schema)
    assert said in problem.what


def test_decimals_are_declared_for_floats_only_and_a_tie_is_an_integer_or_text() -> None:
    events = log(1.0, b=pa.array([1]), f=pa.array([0.5]))
    (problem,) = check_measures(feature_set("x: {sum: mails.b}", events=", decimals: {b: 2}"), "mails", events.schema)
    assert "needs no declared decimals" in problem.what
    (problem,) = check_measures(feature_set("x: {last: mails.b}", events=", tie: f"), "mails", events.schema)
    assert problem.where == "mails.f"


def test_integers_beyond_63_bits_are_refused_not_wrapped() -> None:
    with pytest.raises(PartitionError) as beyond:
        rolled(log(1.0, b=pa.array([2**64 - 1], pa.uint64())), MAX)
    assert beyond.value.reason == "sum_overflow"
    (row,) = rolled(log(1.0, b=pa.array([2**64 - 1], pa.uint64())), DISTINCT)
    assert len(row["b__distinct"]) == 1


SAME = [
    [pa.array(["x"]), pa.array(["x"], pa.large_string()), pa.array(["x"]).dictionary_encode(), pa.array([b"x"])],
    [pa.array([5], pa.int8()), pa.array([5], pa.int64()), pa.array([5], pa.uint16()), pa.array([5]).dictionary_encode()],
    [pa.array([0.5], pa.float32()), pa.array([0.5], pa.float64())],
]


@pytest.mark.parametrize("number", [pa.array([2.5, -1.0]), pa.array([2.5, -1.0], pa.float32()), pa.array([2, -1], pa.int8())])
def test_extremes_of_a_dictionary_are_those_of_its_values(number: pa.Array) -> None:
    assert rolled(log(1.0, 1.0, b=number.dictionary_encode()), MAX) == rolled(log(1.0, 1.0, b=number), MAX)


@pytest.mark.parametrize("forms", SAME, ids=["text", "integers", "floats"])
def test_equal_values_of_other_types_count_once(forms: list[pa.Array]) -> None:
    pieces = [roll_up(log(1.0, b=form), DISTINCT, "mails") for form in forms]
    assert [len(hashes) for hashes in merge(pieces, DISTINCT, "mails")["b__distinct"].to_pylist()] == [1]


@pytest.mark.parametrize(
    ("kind", "two"),
    [
        (pa.date32(), [date(2026, 1, 1), date(2026, 1, 2)]),
        (pa.date64(), [date(2026, 1, 1), date(2026, 1, 2)]),
        (pa.time32("s"), [time(1), time(2)]),
        (pa.time64("us"), [time(1), time(2)]),
        (pa.timestamp("s", "UTC"), [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]),
        (pa.binary(2), [b"ab", b"ac"]),
        (pa.bool_(), [True, False]),
        (pa.float32(), [float("nan"), 0.5, -0.0, 0.0]),  # NaN is no value, and there is one zero
    ],
    ids=str,
)
def test_whatever_distinct_admits_it_can_count(kind: pa.DataType, two: list[Any]) -> None:
    events = log(*[1.0] * (len(two) + 2), b=pa.array([*two, two[0], None], kind))
    assert check_measures(DISTINCT, "mails", events.schema) == ()
    assert [len(row["b__distinct"]) for row in rolled(events, DISTINCT)] == [2]


@pytest.mark.parametrize(
    ("aggregate", "values", "said"),
    [
        ("sum", pa.array([0.5]), "a sum of floats depends on their order"),
        ("mean", pa.array([0.5]), "a sum of floats depends on their order"),
        ("std", pa.array([0.5]), "a sum of floats depends on their order"),
        ("sum", pa.array(["1"]), "numbers only"),
        ("max", pa.array(["1"]), "numbers only"),
        ("min", pa.array([date(2026, 1, 1)]), "numbers only"),
        ("last", pa.array(["1"]), "numbers only"),
        ("top_share", pa.array([[1]]), "numbers, text and times only"),
        ("distinct", pa.array([[1]]), "numbers, text and times only"),
    ],
)
def test_a_measure_its_column_cannot_have_is_told_at_plan_and_stops_a_worker(aggregate: str, values: pa.Array, said: str) -> None:
    features, events = feature_set(f"x: {{{aggregate}: mails.b}}"), log(1.0, b=values)
    (problem,) = check_measures(features, "mails", events.schema)
    assert said in problem.what
    assert problem.where == "mails.b"
    with pytest.raises(PartitionError) as stopped:
        rolled(events, features)
    assert stopped.value.reason == "column_type"
