"""Each definition on its own: what it gives, what an empty window gives, what a null does, and where a window's edges lie.

The rows of the table in `batchscore.features.windows`, one test each.
"""

from __future__ import annotations

import math
from decimal import Decimal
from itertools import permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchscore.errors import PartitionError
from batchscore.features import measured
from batchscore.features.accounts import Accounts
from batchscore.features.frame import make_frame, make_frames, population
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.keys import sort_by_key
from tests.unit.features.small_log import DAY, MOMENT, START, feature_set, log, values

US = 1 / 86_400_000_000  # a microsecond, in days


def missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize("definition", ["count: mails", "sum: mails.b", "distinct: mails.b", "days_active: mails"])
@pytest.mark.parametrize("events", [log(b=pa.array([], pa.int64())), log(1.5, 20.0, b=pa.array([5, 5]))], ids=["none", "outside"])
def test_counts_and_sums_of_an_empty_window_are_0(definition: str, events: pa.Table) -> None:
    assert values(feature_set(f"x: {{{definition}, window: 3d}}"), events, day=10) == {"x": 0}


@pytest.mark.parametrize(
    "definition",
    ["min: mails.b", "max: mails.b", "mean: mails.b", "std: mails.b", "first: mails.b", "last: mails.b", "top_share: mails.b",
     "time_since: mails"],
)  # fmt: skip
@pytest.mark.parametrize("events", [log(b=pa.array([], pa.int64())), log(1.5, 20.0, b=pa.array([5, 5]))], ids=["none", "outside"])
def test_what_needs_a_value_is_missing_in_an_empty_window(definition: str, events: pa.Table) -> None:
    assert missing(values(feature_set(f"x: {{{definition}, window: 3d}}"), events, day=10)["x"])


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("count: mails", 4),
        ("sum: mails.b", 4),
        ("min: mails.b", -3.0),
        ("max: mails.b", 7.0),
        ("mean: mails.b", 2.0),
        ("std: mails.b", 5.0),
        ("first: mails.b", 7.0),
        ("last: mails.b", -3.0),
        ("top_share: mails.b", 0.5),
        ("distinct: mails.b", 2.0),
        ("days_active: mails", 2),
        ("time_since: mails", 1.25),
    ],
)
def test_a_null_is_an_event_and_no_value(definition: str, expected: float) -> None:
    events = log(1.0, 1.5, 1.5, 2.75, b=pa.array([7, -3, None, None]))
    # (7 − 3) / 2 = 2, and 7 and −3 are 5 from it: the nulls are in no sum and in no divisor, yet their mails are counted, and
    # the last of them is the last.
    assert values(feature_set(f"x: {{{definition}, window: 5d}}"), events, day=4, pieces=2) == {"x": expected}


@pytest.mark.parametrize(
    ("definition", "expected"),
    [("sum: mails.b", 0), ("distinct: mails.b", 0.0), ("min: mails.b", None), ("mean: mails.b", None),
     ("std: mails.b", None), ("first: mails.b", None), ("last: mails.b", None), ("top_share: mails.b", None)],
)  # fmt: skip
@pytest.mark.parametrize("nulls", [pa.nulls(2), pa.nulls(2, pa.int32())], ids=["untyped", "int32"])
def test_a_window_of_nothing_but_nulls_has_no_values(definition: str, expected: float | None, nulls: pa.Array) -> None:
    found = values(feature_set(f"x: {{{definition}}}"), log(1.0, 2.0, b=nulls), day=4)["x"]
    assert missing(found) if expected is None else found == expected


@pytest.mark.parametrize(("offset", "inside"), [(-3 - US, 0), (-3, 1), (-US, 1), (0, 0), (US, 0)])
def test_a_window_holds_its_first_moment_and_not_the_as_of(offset: float, inside: int) -> None:
    assert values(feature_set("x: {count: mails, window: 3d}"), log(10 + offset), day=10) == {"x": inside}


@pytest.mark.parametrize(("known", "counts"), [(9.0, 1), (10 - US, 1), (10.0, 0), (12.0, 0)])
def test_an_event_counts_only_once_it_was_known_before_the_as_of(known: float, counts: int) -> None:
    found = values(feature_set("x: {count: mails, window: 3d}\nlast: {time_since: mails}"), log(8.5, known=[known]), day=10)
    assert found["x"] == counts
    assert found["last"] == 1.5 if counts else missing(found["last"])


def test_a_late_event_is_unknown_to_an_early_as_of_and_known_to_a_later_one() -> None:
    features, events = feature_set("x: {count: mails, window: 5d}"), log(8.0, 8.0, known=[8.0, 10.5])
    assert [values(features, events, day=day)["x"] for day in (9, 10, 11, 13, 14)] == [1, 1, 2, 2, 0]


def test_equal_events_are_counted_each() -> None:
    events = log(1.5, 1.5, 1.5, b=pa.array([2, 2, 2]))
    assert values(feature_set("n: {count: mails}\ns: {sum: mails.b}\nd: {distinct: mails.b}"), events, day=4, pieces=3) == {
        "n": 3, "s": 6, "d": 1.0,
    }  # fmt: skip


def test_days_active_counts_a_day_once_however_many_events_and_known_days_it_has() -> None:
    events = log(1.0, 1.999, 1.5, 3.0, known=[1.0, 5.0, 6.0, 3.0])
    assert values(feature_set("x: {days_active: mails}"), events, day=8, pieces=4) == {"x": 2}


def test_time_since_without_a_window_looks_back_over_all_history() -> None:
    found = values(feature_set("ever: {time_since: mails}\nlately: {time_since: mails, window: 7d}"), log(-900.25), day=0)
    assert found["ever"] == 900.25
    assert missing(found["lately"])


@pytest.mark.parametrize("n", [1, 16, 17, 500])
def test_distinct_is_exact_up_to_its_limit_and_near_the_truth_beyond(n: int) -> None:
    events = log(*[1.5] * n, b=pa.array([f"r{number}" for number in range(n)]))
    found = values(feature_set("x: {distinct: mails.b}"), events, day=4)["x"]
    if n <= 16:
        assert found == n
    else:
        assert abs(found / n - 1) < 4 / math.sqrt(16 - 1)  # four standard errors
    assert found == values(feature_set("x: {distinct: mails.b}"), events, day=4, pieces=7)["x"]


def test_a_float_extreme_passes_over_nan_and_knows_one_zero() -> None:
    events = log(1.0, 1.0, 2.0, 2.0, b=pa.array([float("nan"), -0.0, None, 0.0]))
    found = values(feature_set("lo: {min: mails.b}\nhi: {max: mails.b}\nd: {distinct: mails.b}"), events, day=4)
    assert found == {"lo": 0.0, "hi": 0.0, "d": 1.0}
    assert [math.copysign(1, found[name]) for name in ("lo", "hi")] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [(3.0, 2.0, 1.5), (0.0, 2.0, 0.0), (3.0, 0.0, None), (0.0, 0.0, None), (math.nan, 2.0, None), (3.0, math.nan, None),
     (None, 2.0, None), (3.0, None, None), (1e308, 1e-308, math.inf)],
)  # fmt: skip
def test_a_ratio_is_missing_where_either_is_or_the_divisor_is_0(
    above: float | None, below: float | None, expected: float | None
) -> None:
    features = feature_set("a: {column: p}\nb: {column: q}\nx: {ratio: [a, b]}", accounts=", immutable: [p, q]")
    accounts = pa.table(
        {"account_id": pa.array([1], pa.uint64()), "p": pa.array([above], pa.float64()), "q": pa.array([below], pa.float64())}
    )
    found = make_frame(accounts, {}, START, features)["x"].to_pylist()[0]
    assert missing(found) if expected is None else found == expected


@pytest.mark.parametrize(
    ("minuend", "subtrahend", "expected"),
    [(3.0, 2.0, 1.0), (2.0, 3.0, -1.0), (math.nan, 2.0, None), (3.0, None, None), (1e308, -1e308, math.inf)],
)
def test_a_difference_is_missing_where_either_is(minuend: float | None, subtrahend: float | None, expected: float | None) -> None:
    features = feature_set("a: {column: p}\nb: {column: q}\nx: {difference: [a, b]}", accounts=", immutable: [p, q]")
    columns = {"p": pa.array([minuend], pa.float64()), "q": pa.array([subtrahend], pa.float64())}
    found = make_frame(pa.table({"account_id": pa.array([1], pa.uint64()), **columns}), {}, START, features)["x"].to_pylist()[0]
    assert missing(found) if expected is None else found == expected


def test_a_deviation_is_exact_where_floats_would_cancel_and_0_of_one_value() -> None:
    large = 2**46
    found = values(
        feature_set("x: {std: mails.b}"), log(1.0, 1.5, 2.0, b=pa.array([large - 1, large - 1, large - 4])), day=4, pieces=3
    )
    assert found["x"] == math.sqrt(18) / 3  # n·q − total² is 18: two roundings in all
    assert values(feature_set("x: {std: mails.b}"), log(1.0, b=pa.array([7])), day=4)["x"] == 0.0


@pytest.mark.parametrize("number", [2**47, -(2**47), -(2**63)])
def test_a_value_too_large_to_be_squared_exactly_is_refused(number: int) -> None:
    with pytest.raises(PartitionError, match=r"\[b\]") as overflow:
        values(feature_set("x: {std: mails.b}"), log(1.0, b=pa.array([number])), day=4)
    assert overflow.value.reason == "sum_overflow"


@pytest.mark.parametrize("pieces", [1, 4])
def test_first_and_last_go_by_moment_then_knowledge_then_tie_then_value(pieces: int) -> None:
    features = feature_set("f: {first: mails.b}\nl: {last: mails.b}", events=", tie: serial")

    def ends(at: list[float], known: list[float], serial: list[int | None], b: list[int | None]) -> tuple[float, float]:
        events = log(*at, known=known, b=pa.array(b, pa.int64()), serial=pa.array(serial, pa.int64()))
        found = values(features, events, day=9, pieces=pieces)
        return found["f"], found["l"]

    assert ends([2, 1, 3, 2.5], [2, 8, 3, 4], [9, 9, 0, 9], [20, 10, 30, 25]) == (10, 30)
    assert ends([1, 1, 1, 1], [1, 3, 2, 2], [9, 0, 9, 9], [1, 2, 3, 4]) == (1, 2)
    assert ends([1, 1, 1, 1], [2, 2, 2, 2], [5, None, 7, 6], [1, 2, 3, 4]) == (2, 3)
    assert ends([1, 1, 1, 1], [2, 2, 2, 2], [5, 5, 5, 5], [1, 4, 3, 2]) == (1, 4)
    assert ends([1, 1, 1, 3], [2, 2, 2, 3], [5, 5, 5, 5], [8, None, 3, None]) == (3, 8)


def test_a_tie_of_text_tells_events_of_one_moment_apart_the_same_however_they_come() -> None:
    features = feature_set("f: {first: mails.b}\nl: {last: mails.b}", events=", tie: serial")
    rows = [("a", 1), ("b", 2), ("\u00fc", 3), (None, 4)]
    found = set()
    for order in permutations(rows):
        serial, b = zip(*order, strict=True)
        events = log(*[1.0] * 4, b=pa.array(b), serial=pa.array(serial, pa.string()))
        for pieces, kind in ((1, pa.string()), (4, pa.large_string()), (2, pa.dictionary(pa.int32(), pa.string()))):
            tied = events.set_column(events.column_names.index("serial"), "serial", events["serial"].cast(kind))
            found.add(tuple(values(features, tied, day=9, pieces=pieces).values()))
    ((first, last),) = found
    assert first != last


@pytest.mark.parametrize("pieces", [1, 3])
def test_different_values_are_counted_exactly_also_where_their_hashes_begin_alike(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_last_bits(words: pa.Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.array([99 - int(word) for word in words.to_pylist()], np.uint64)

    monkeypatch.setattr(measured, "hash64", by_last_bits)
    words = [str(number) for number in (7, 3, 7, 1, 12, 3, 7, 9)]
    events = log(*(1.0 + number / 10 for number in range(len(words))), b=pa.array(words))
    found = values(feature_set("d: {distinct: mails.b}\nt: {top_share: mails.b}"), events, day=5, pieces=pieces)
    assert found == {"d": 5.0, "t": 3 / 8}


@pytest.mark.parametrize(("n_values", "expected"), [(1, 1.0), (16, 5 / 20), (17, None)])
def test_a_top_share_is_exact_up_to_the_limit_and_missing_beyond(n_values: int, expected: float | None) -> None:
    words = [f"w{number}" for number in range(n_values)] + ["w0"] * (4 if n_values > 1 else 0)
    events = log(*[1.0 + number / 10 for number in range(len(words))], b=pa.array(words))
    for pieces in (1, 5):
        found = values(feature_set("x: {top_share: mails.b}"), events, day=5, pieces=pieces)["x"]
        assert missing(found) if expected is None else found == expected


def test_decimals_are_summed_exactly_and_divided_once() -> None:
    features = feature_set("s: {sum: mails.b}\nm: {mean: mails.b}\nx: {max: mails.b}\nl: {last: mails.b}\nd: {distinct: mails.b}")
    exact = [Decimal("0.10"), Decimal("0.20"), Decimal("0.30"), Decimal("-0.30"), Decimal("0.00"), None]
    events = log(*[1.0] * 5, 2.0, b=pa.array(exact, pa.decimal128(9, 2)))
    found = values(features, events, day=4, pieces=3)
    assert found == {"s": 0.3, "m": 0.06, "x": 0.3, "l": 0.3, "d": 5.0}
    floats = log(*[1.0] * 5, 2.0, b=pa.array([0.1, 0.2, 0.1 + 0.2, -0.3, 0.0, None]))
    text = "s: {sum: mails.b}\nm: {mean: mails.b}\nx: {max: mails.b}\nl: {last: mails.b}\nd: {distinct: mails.b}"
    assert values(feature_set(text, events=", decimals: {b: 2}"), floats, day=4, pieces=3) == found


@pytest.mark.parametrize("number", [float("inf"), 1e18])
def test_a_float_that_is_no_decimal_of_18_digits_is_refused(number: float) -> None:
    with pytest.raises(PartitionError) as overflow:
        values(feature_set("s: {sum: mails.b}", events=", decimals: {b: 2}"), log(1.0, b=pa.array([number])), day=4)
    assert overflow.value.reason == "sum_overflow"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ('[[b, "==", 3]]', 1), ('[[b, "!=", 3]]', 2), ('[[b, "<", 3]]', 1), ('[[b, "<=", 3]]', 2), ('[[b, ">", 3]]', 1),
        ('[[b, ">=", 3]]', 2), ("[[b, in, [1, 3, 4]]]", 2), ("[[b, not in, [1, 4]]]", 2), ('[[t, "==", x]]', 2),
        ("[[t, not in, [x]]]", 1), ('[[f, ">", 1]]', 1), ('[[f, "!=", 0.5]]', 1), ('[[y, "==", true]]', 2),
        ('[[m, ">=", 1.25]]', 1), ('[[m, "<", 1.255]]', 2), ('[[b, ">", 1], [t, "==", x]]', 1),
        ('[[[b, "==", 1]], [[t, "==", z], [f, ">", 1]]]', 2),
    ],
)  # fmt: skip
def test_a_filter_lets_pass_what_pyarrow_lets_pass_and_never_a_null(where: str, expected: int) -> None:
    events = log(
        1.0, 1.0, 2.0, 2.5,
        b=pa.array([1, 3, 5, None]),
        t=pa.array(["x", "x", "z", None]).dictionary_encode(),
        f=pa.array([0.5, float("nan"), 2.0, None]),
        y=pa.array([True, False, True, None]),
        m=pa.array([Decimal("1.24"), None, Decimal("1.25"), None], pa.decimal128(9, 2)),
    )  # fmt: skip
    assert values(feature_set(f"x: {{count: mails, where: {where}}}"), events, day=4, pieces=2) == {"x": expected}


def test_hours_are_whole_grains_where_the_feature_set_says_so() -> None:
    hour = 1 / 24
    events = log(1 - hour, 1 - US, 1.0, 1 + 2.5 * hour, 2 + hour, b=pa.array([1, 2, 3, 4, 5]))
    counted = "n: {count: mails, window: 4h}\nd: {days_active: mails, window: 1d}\n"
    features = feature_set(f"{counted}s: {{sum: mails.b}}\nq: {{time_since: mails, window: 1h}}", grain="1h")
    assert values(features, events, day=1) == {"n": 2, "d": 1, "s": 3, "q": US}
    accounts = pa.table({"account_id": pa.array([1], pa.uint64())})
    prepared = prepare(accounts["account_id"].combine_chunks(), roll_up(events, features, "mails"), features, "mails")
    as_ofs = [START + (1 + hours * hour) * DAY for hours in (0, 1, 3, 4, 24, 26)]
    rows = [frame.to_pylist()[0] for frame in make_frames(Accounts(accounts), {"mails": prepared}, as_ofs, features)]
    assert [row["n"] for row in rows] == [2, 3, 4, 2, 0, 1]
    assert [row["d"] for row in rows] == [1, 2, 2, 2, 1, 2]


def test_an_age_is_in_days_and_missing_without_a_date() -> None:
    accounts = pa.table({"account_id": pa.array([1, 2], pa.uint64()), "created_at": pa.array([START - 1.5 * DAY, None], MOMENT)})
    found = make_frame(accounts, {}, START, feature_set("x: {age: created_at}"))["x"].to_pylist()
    assert found[0] == 1.5
    assert missing(found[1])


def test_the_population_is_what_was_created_before_and_not_deleted_by_the_as_of() -> None:
    created = [START - DAY, START - US * DAY, START, START - DAY, START - DAY, START - DAY, None]
    deleted = [None, None, None, START, START + US * DAY, START - DAY, None]
    accounts = pa.table({"created_at": pa.array(created, MOMENT), "deleted_at": pa.array(deleted, MOMENT)})
    assert population(accounts, START).tolist() == [True, True, False, False, True, False, True]
    assert population(pa.table({"account_id": pa.array([1, 2], pa.uint64())}), START).all()


def test_account_columns_pass_as_they_are_and_without_a_copy() -> None:
    features = feature_set("a: {column: p}\nb: {column: q}", accounts=", immutable: [p, q]")
    accounts = pa.table(
        {"account_id": pa.array([1, 2], pa.uint64()), "p": pa.array([1.5, None], pa.float32()), "q": pa.array([True, False])}
    )
    frame = make_frame(accounts, {}, START, features, np.array([True, True]))
    assert frame.schema.types == [pa.uint64(), pa.float32(), pa.bool_()]
    assert frame["a"].chunk(0).buffers()[1].address == accounts["p"].chunk(0).buffers()[1].address
    assert make_frame(accounts, {}, START, features, np.array([False, True])).to_pylist() == [
        {"account_id": 2, "a": None, "b": False}
    ]


def test_orphans_are_counted_and_change_nothing() -> None:
    features = feature_set("n: {count: mails}\nd: {distinct: mails.b}")
    rolled = roll_up(log(1.0, 1.0, 1.5, 2.0, ids=[9, 9, 1, 0], b=pa.array([1, 2, 3, 4])), features, "mails")
    ids = pa.array([1, 5], pa.uint64())
    prepared = prepare(ids, rolled, features, "mails")
    assert prepared.n_orphans == 3
    frame = make_frame(pa.table({"account_id": ids}), {"mails": prepared}, START + 4 * DAY, features)
    assert frame.to_pylist() == [{"account_id": 1, "n": 1, "d": 1.0}, {"account_id": 5, "n": 0, "d": 0.0}]


def test_a_key_range_without_accounts_or_events_is_fine() -> None:
    features = feature_set(
        "n: {count: mails}\ns: {sum: mails.b}\nd: {distinct: mails.b}\na: {days_active: mails}\nq: {time_since: mails}"
    )
    nobody = pa.array([], pa.uint64())
    for events in (log(b=pa.array([], pa.int64())), log(1.0, b=pa.array([1]))):
        prepared = prepare(nobody, roll_up(events, features, "mails"), features, "mails")
        assert make_frame(pa.table({"account_id": nobody}), {"mails": prepared}, START, features).num_rows == 0
        assert prepared.n_orphans == len(events)


def test_a_sum_too_large_depends_on_the_window_of_the_account_alone() -> None:
    features = feature_set("x: {sum: mails.b, window: 2d}")
    large = 2**62
    events = log(1.0, 2.0, 3.0, 3.5, ids=[1, 1, 1, 2], b=pa.array([large, large - 1, large, large]))
    rolled = sort_by_key(pa.concat_tables([roll_up(events.slice(at, 1), features, "mails") for at in range(4)]))

    def sums(ids: list[int], day: int) -> list[int]:
        accounts = pa.table({"account_id": pa.array(ids, pa.uint64())})
        prepared = prepare(accounts["account_id"].combine_chunks(), rolled, features, "mails")
        found: list[int] = make_frame(accounts, {"mails": prepared}, START + day * DAY, features)["x"].to_pylist()
        return found

    assert sums([1, 2], 3) == [2**63 - 1, 0]
    assert sums([1, 2], 4) == [2**63 - 1, large]  # beside account 1, account 2 would burst any sum over the whole partition
    assert sums([2], 4) == [large]
    wide = feature_set("x: {sum: mails.b, window: 3d}")
    with pytest.raises(PartitionError, match=r"mails\.b") as overflow:
        values(wide, events.slice(0, 3), day=4, pieces=3)
    assert overflow.value.reason == "sum_overflow"
