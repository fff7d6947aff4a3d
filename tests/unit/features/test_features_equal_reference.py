"""Features equal a slow, obvious reference on random event logs, and are bit-equal however events and accounts are cut.

The reference keeps every event as a Python dict and applies the definitions as they are written in `windows`; no rollup,
no vectors, no shared code.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.document import parse_document
from batchscore.features.accounts import Accounts
from batchscore.features.feature_set import FeatureSet
from batchscore.features.frame import make_frame, make_frames, population
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.keys import ID_TYPES, IdKind, sort_by_key
from batchscore.values import parse_duration

MOMENT = pa.timestamp("us", tz="UTC")
START = datetime(2024, 2, 26, tzinfo=UTC)  # a leap day and a change to summer time lie ahead
DAY = timedelta(days=1)
KIND_IDS: dict[str, list[Any]] = {
    "integer": [0, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**64 - 1],
    "string": ["", "0", "00", " a", "a ", "é", "e\u0301", "\U0001f4e7", "A", "a"],
}


@cache
def feature_set(kind: IdKind, window: int, distinct_limit: int = 256, grain: str = "1d") -> FeatureSet:
    """Every definition there is; ``window`` is in grains."""
    length = f"{window}{grain[-1]}"
    text = f"""
feature_set: random
version: 1
account_id: {kind}
grain: {grain}
accounts: {{table: accounts, key: id, created_at: created, deleted_at: deleted, immutable: [plan]}}
events:
  - table: mails
    key: id
    event_at: at
    known_at: known
    tie: serial
    decimals: {{price: 2}}
    distinct_limit: {distinct_limit}
features:
  n: {{count: mails, window: {length}}}
  n_ever: {{count: mails}}
  total: {{sum: mails.bytes, window: {length}}}
  least: {{min: mails.bytes, window: {length}}}
  most: {{max: mails.spamminess, window: {length}}}
  mean: {{mean: mails.bytes, window: {length}}}
  spread: {{std: mails.bytes, window: {length}}}
  spread_ever: {{std: mails.bytes}}
  earliest: {{first: mails.bytes, window: {length}}}
  latest: {{last: mails.spamminess, window: {length}}}
  latest_ever: {{last: mails.bytes}}
  recipients: {{distinct: mails.recipient, window: {length}}}
  favourite: {{top_share: mails.recipient, window: {length}}}
  favourite_ever: {{top_share: mails.bytes}}
  active: {{days_active: mails, window: {length}}}
  quiet: {{time_since: mails, window: {length}}}
  paid: {{sum: mails.price, window: {length}}}
  paid_spread: {{std: mails.price, window: {length}}}
  dearest: {{max: mails.price, window: {length}}}
  fees: {{sum: mails.fee, window: {length}}}
  fee_mean: {{mean: mails.fee}}
  fee_last: {{last: mails.fee, window: {length}}}
  prices: {{distinct: mails.price}}
  large: {{count: mails, window: {length}, where: [[bytes, ">", 1000]]}}
  either: {{sum: mails.bytes, where: [[[recipient, in, [a, é]]], [[bytes, "<", 0], [spamminess, ">=", 0.5]]]}}
  not_a: {{distinct: mails.recipient, window: {length}, where: [[recipient, not in, [a]]]}}
  not_b: {{last: mails.bytes, where: [[recipient, "!=", b]]}}
  cheap: {{time_since: mails, where: [[fee, "<=", 1.25]]}}
  cheap_days: {{days_active: mails, window: {length}, where: [[fee, "<=", 1.25]]}}
  cheap_top: {{top_share: mails.recipient, where: [[fee, "<=", 1.25]]}}
  share: {{ratio: [n, n_ever]}}
  drift: {{difference: [n_ever, mean]}}
  plan: {{column: plan}}
  age: {{age: created_at}}
"""
    return parse_document(text, FeatureSet, name="features.yaml", check=FeatureSet.mistakes)


def events_of(kind: IdKind) -> st.SearchStrategy[list[dict[str, Any]]]:
    seconds = st.one_of(
        st.integers(0, 12 * 86_400), st.sampled_from([day * 86_400 + off for day in range(12) for off in (-1, 0, 1)])
    )
    event = st.fixed_dictionaries(
        {
            "id": st.sampled_from(KIND_IDS[kind]),
            "at": seconds,
            "late": st.sampled_from([0, 0, 0, 1, 86_400, 3 * 86_400]),
            "bytes": st.one_of(st.none(), st.integers(-(2**40), 2**40)),
            "spamminess": st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan")), st.just(-0.0)),
            "recipient": st.one_of(st.none(), st.sampled_from(["a", "b", "c", "é", ""])),
            "serial": st.one_of(st.none(), st.integers(-3, 3)),
            "price": st.one_of(st.none(), st.integers(-1000, 1000).map(lambda cents: cents / 100), st.just(float("nan"))),
            "fee": st.one_of(st.none(), st.integers(-(10**6), 10**6).map(lambda mills: Decimal(mills).scaleb(-3))),
        }
    )
    return st.lists(event, max_size=40)


LOGS = st.sampled_from(["integer", "string"]).flatmap(lambda kind: st.tuples(st.just(kind), events_of(kind)))  # type: ignore[arg-type]


def as_table(events: list[dict[str, Any]], kind: IdKind) -> pa.Table:
    at = [START + timedelta(seconds=event["at"]) for event in events]
    return pa.table(
        {
            "account_id": pa.array([event["id"] for event in events], ID_TYPES[kind]),
            "event_at": pa.array(at, MOMENT),
            "known_at": pa.array(
                [moment + timedelta(seconds=event["late"]) for moment, event in zip(at, events, strict=True)], MOMENT
            ),
            "bytes": pa.array([event["bytes"] for event in events], pa.int64()),
            "spamminess": pa.array([event["spamminess"] for event in events], pa.float64()),
            "recipient": pa.array([event["recipient"] for event in events], pa.string()),
            "serial": pa.array([event["serial"] for event in events], pa.int64()),
            "price": pa.array([event["price"] for event in events], pa.float64()),
            "fee": pa.array([event["fee"] for event in events], pa.decimal128(12, 3)),
        }
    )


def accounts_table(kind: IdKind) -> pa.Table:
    ids = KIND_IDS[kind]
    created = [None if number == 1 else START + number * DAY for number in range(len(ids))]
    deleted = [START + 9 * DAY if number == 2 else None for number in range(len(ids))]
    table = pa.table(
        {
            "account_id": pa.array(ids, ID_TYPES[kind]),
            "created_at": pa.array(created, MOMENT),
            "deleted_at": pa.array(deleted, MOMENT),
            "plan": pa.array([number % 3 for number in range(len(ids))], pa.int8()),
        }
    )
    return sort_by_key(table)


def present(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None and not (isinstance(value, float) and math.isnan(value))]


def mean_of(values: list[Any], scale: int = 1) -> float:
    whole = [int(value * scale) for value in values]
    return sum(whole) / (len(whole) * scale) if whole else math.nan


def deviation_of(values: list[Any], scale: int = 1) -> float:
    whole = [int(value * scale) for value in values]
    n = len(whole)
    return math.sqrt(n * sum(value * value for value in whole) - sum(whole) ** 2) / n / scale if whole else math.nan


def top_share_of(values: list[Any], limit: int) -> float:
    counts = pd.Series(values, dtype=object).value_counts()
    return counts.max() / counts.sum() if 0 < len(counts) <= limit else math.nan


def end_of(rows: list[dict[str, Any]], column: str, *, last: bool) -> float:
    """The value of the first or last event that has one; events in order of moment, knowledge, serial, value."""
    found = [row for row in rows if present([row[column]])]
    ordered = sorted(found, key=lambda row: (row["at"], row["known"], row["serial"] is not None, row["serial"] or 0, row[column]))
    return float(ordered[-1 if last else 0][column]) if ordered else math.nan


def reference(
    events: list[dict[str, Any]], account: dict[str, Any], as_of: datetime, window: timedelta, limit: int = 256
) -> dict[str, Any]:
    """What the definitions say, for one account, in plain Python and pandas."""
    rows = []
    for event in events:
        if event["id"] == account["account_id"]:
            at = START + timedelta(seconds=event["at"])
            price = Decimal(round(event["price"] * 100)) / 100 if present([event["price"]]) else None
            rows.append(event | {"at": at, "known": at + timedelta(seconds=event["late"]), "price": price})
    ever = [row for row in rows if row["at"] < as_of and row["known"] < as_of]
    inside = [row for row in ever if row["at"] >= as_of - window]

    def of(rows: list[dict[str, Any]], column: str) -> list[Any]:
        return present([row[column] for row in rows])

    def quiet(rows: list[dict[str, Any]]) -> float:
        return float((as_of - max(row["at"] for row in rows)) / DAY) if rows else math.nan

    def is_cheap(row: dict[str, Any]) -> bool:
        return row["fee"] is not None and bool(row["fee"] <= Decimal("1.25"))

    def either(row: dict[str, Any]) -> bool:
        spam = present([row["spamminess"]])
        return row["recipient"] in {"a", "é"} or bool(row["bytes"] is not None and row["bytes"] < 0 and spam and spam[0] >= 0.5)

    numbers, fees = of(inside, "bytes"), of(inside, "fee")
    cheap, cheap_inside = ([row for row in rows if is_cheap(row)] for rows in (ever, inside))
    created = account["created_at"]
    return {
        "n": len(inside),
        "n_ever": len(ever),
        "total": sum(numbers),
        "least": min(numbers, default=math.nan),
        "most": max(of(inside, "spamminess"), default=math.nan),
        "mean": mean_of(numbers),
        "spread": deviation_of(numbers),
        "spread_ever": deviation_of(of(ever, "bytes")),
        "earliest": end_of(inside, "bytes", last=False),
        "latest": end_of(inside, "spamminess", last=True),
        "latest_ever": end_of(ever, "bytes", last=True),
        "recipients": len(set(of(inside, "recipient"))),
        "favourite": top_share_of(of(inside, "recipient"), limit),
        "favourite_ever": top_share_of(of(ever, "bytes"), limit),
        "active": len({row["at"].date() for row in inside}),
        "quiet": quiet(inside),
        "paid": int(sum(of(inside, "price")) * 100) / 100,
        "paid_spread": deviation_of(of(inside, "price"), 100),
        "dearest": float(max(of(inside, "price"), default=math.nan)),
        "fees": int(sum(fees) * 1000) / 1000,
        "fee_mean": mean_of(of(ever, "fee"), 1000),
        "fee_last": end_of(inside, "fee", last=True),
        "prices": len(set(of(ever, "price"))),
        "large": len([row for row in inside if row["bytes"] is not None and row["bytes"] > 1000]),
        "either": sum(of([row for row in ever if either(row)], "bytes")),
        "not_a": len(set(of([row for row in inside if row["recipient"] not in {None, "a"}], "recipient"))),
        "not_b": end_of([row for row in ever if row["recipient"] not in {None, "b"}], "bytes", last=True),
        "cheap": quiet(cheap),
        "cheap_days": len({row["at"].date() for row in cheap_inside}),
        "cheap_top": top_share_of(of(cheap, "recipient"), limit),
        "share": len(inside) / len(ever) if ever else math.nan,
        "drift": len(ever) - mean_of(numbers),
        "plan": account["plan"],
        "age": (as_of - created) / DAY if created is not None else math.nan,
    }


def frames(events: list[pa.Table], accounts: list[pa.Table], features: FeatureSet, as_of: datetime) -> pa.Table:
    """The product: roll up each piece of the events, then make the frame of each piece of the accounts."""
    rolled = pa.concat_tables([roll_up(piece, features, "mails") for piece in events])
    parts = []
    for piece in accounts:
        ids = piece["account_id"].combine_chunks()
        parts.append(
            make_frame(
                piece, {"mails": prepare(ids, sort_by_key(rolled), features, "mails")}, as_of, features, population(piece, as_of)
            )
        )
    return pa.concat_tables(parts)


@settings(max_examples=30, deadline=None)
@given(LOGS, st.integers(1, 14), st.integers(0, 14), st.sampled_from([16, 256]))
def test_features_equal_the_slow_reference(
    kind_and_events: tuple[IdKind, list[dict[str, Any]]], window: int, day: int, limit: int
) -> None:
    kind, events = kind_and_events
    as_of, features = START + day * DAY, feature_set(kind, window, limit)
    frame = frames([as_table(events, kind)], [accounts_table(kind)], features, as_of)
    expected = [
        {"account_id": account["account_id"], **reference(events, account, as_of, window * DAY, limit)}
        for account in accounts_table(kind).to_pylist()
        if (account["created_at"] is None or account["created_at"] < as_of)
        and (account["deleted_at"] is None or account["deleted_at"] > as_of)
    ]
    assert frame["account_id"].to_pylist() == [row["account_id"] for row in expected]
    for name in features.names:
        found = frame[name].to_numpy().astype(np.float64)
        np.testing.assert_array_equal(found, np.array([row[name] for row in expected], np.float64), err_msg=name)


@settings(max_examples=10, deadline=None)
@given(
    LOGS,
    st.sampled_from(["1d", "1h"]),
    st.integers(1, 40),
    st.lists(st.integers(0, 300), min_size=1, max_size=9, unique=True),
    st.integers(0, 40),
)
def test_one_pass_over_many_as_ofs_equals_the_slow_reference_at_each(
    kind_and_events: tuple[IdKind, list[dict[str, Any]]], grain: str, window: int, steps: list[int], cut: int
) -> None:
    kind, events = kind_and_events
    features, accounts = feature_set(kind, window, grain=grain), accounts_table(kind)
    length = parse_duration(grain)
    as_ofs = [START + step * length for step in sorted({step if grain == "1h" else step // 16 for step in steps})]
    rolled = pa.concat_tables([roll_up(as_table(piece, kind), features, "mails") for piece in (events[:cut], events[cut:])])
    prepared = {"mails": prepare(accounts["account_id"].combine_chunks(), sort_by_key(rolled), features, "mails")}
    for as_of, frame in zip(as_ofs, make_frames(Accounts(accounts), prepared, as_ofs, features), strict=True):
        for account, row in zip(accounts.to_pylist(), frame.to_pylist(), strict=True):
            expected = reference(events, account, as_of, window * length)
            np.testing.assert_array_equal([row[name] for name in features.names], [expected[name] for name in features.names])


@settings(max_examples=12, deadline=None)
@given(LOGS, st.integers(1, 14), st.lists(st.integers(0, 16), min_size=2, max_size=9, unique=True), st.integers(1, 4))
def test_one_pass_is_bit_equal_to_a_pass_for_each_as_of(
    kind_and_events: tuple[IdKind, list[dict[str, Any]]], window: int, days: list[int], n_together: int
) -> None:
    kind, events = kind_and_events
    features, accounts = feature_set(kind, window, distinct_limit=16), accounts_table(kind)
    as_ofs = [START + day * DAY for day in sorted(days)]
    rolled = roll_up(as_table(events, kind), features, "mails")
    span = as_ofs[0], as_ofs[-1]
    ids = accounts["account_id"].combine_chunks()
    whole, prepared = ({"mails": prepare(ids, rolled, features, "mails", reached)} for reached in (None, span))
    n_over_events = sum(definition.kind == "over_events" for definition in features.features.values())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("batchscore.features.frame.BLOCK_BYTES", 8 * len(accounts) * n_over_events * n_together)
        together = list(make_frames(Accounts(accounts), prepared, as_ofs, features))
    for as_of, frame in zip(as_ofs, together, strict=True):
        alone = make_frame(accounts, whole, as_of, features)
        assert {name: alone[name].to_numpy().tobytes() for name in features.names} == {
            name: frame[name].to_numpy().tobytes() for name in features.names
        }


@settings(max_examples=15, deadline=None)
@given(
    LOGS,
    st.randoms(use_true_random=False),
)
def test_features_are_bit_equal_however_events_and_accounts_are_cut_and_ordered(
    kind_and_events: tuple[IdKind, list[dict[str, Any]]], random: Random
) -> None:
    kind, events = kind_and_events
    features, as_of = feature_set(kind, 7, distinct_limit=16), START + 9 * DAY
    whole = frames([as_table(events, kind)], [accounts_table(kind)], features, as_of)
    shuffled = events.copy()
    random.shuffle(shuffled)
    cuts = sorted({0, len(shuffled), *(random.randrange(len(shuffled) + 1) for _ in range(4))})
    pieces = [as_table(shuffled[low:high], kind) for low, high in pairwise(cuts)] or [as_table([], kind)]
    accounts = accounts_table(kind)
    edges = [0, *sorted(random.randrange(len(accounts) + 1) for _ in range(random.randrange(5))), len(accounts)]
    partitions = [accounts.slice(low, high - low) for low, high in pairwise(edges)]
    cut = frames(pieces, partitions, features, as_of)
    assert cut["account_id"].to_pylist() == whole["account_id"].to_pylist()
    assert {name: whole[name].to_numpy().tobytes() for name in features.names} == {
        name: cut[name].to_numpy().tobytes() for name in features.names
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 200), st.integers(0, 2**32), st.integers(1, 6))
def test_distinct_is_exact_up_to_the_limit_and_an_estimate_free_of_cut_beyond(
    n_events: int, n_values: int, seed: int, n_pieces: int
) -> None:
    random = Random(seed)  # drawn here: hypothesis takes longer over 600 numbers than the features do
    values = [(random.randrange(6), random.randrange(n_values)) for _ in range(n_events)]
    features = feature_set("integer", 14, distinct_limit=16)
    nothing = dict.fromkeys(["bytes", "spamminess", "serial", "price", "fee"])
    events = [{"id": 1, "at": day * 86_400, "late": 0, **nothing, "recipient": f"r{value}"} for day, value in values]
    accounts = accounts_table("integer")
    as_of = START + 10 * DAY
    whole = frames([as_table(events, "integer")], [accounts], features, as_of)["recipients"].to_pylist()[1]
    cut = frames([as_table(events[part::n_pieces], "integer") for part in range(n_pieces)], [accounts], features, as_of)[
        "recipients"
    ].to_pylist()[1]
    truth = len({value for _, value in values})
    assert whole == cut
    assert whole == truth if truth <= 16 else 0.2 * truth < whole < 5 * truth
