"""Features equal a slow, obvious reference on random event logs, and are bit-equal however events and accounts are cut.

The reference keeps every event as a Python dict and applies the definitions as they are written in `windows`; no rollup,
no vectors, no shared code.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.document import parse_document
from batchscore.features.feature_set import FeatureSet
from batchscore.features.frame import make_frame, population
from batchscore.features.rollup import roll_up
from batchscore.features.windows import prepare
from batchscore.keys import ID_TYPES, IdKind, sort_by_key

MOMENT = pa.timestamp("us", tz="UTC")
START = datetime(2024, 2, 26, tzinfo=UTC)  # a leap day and a change to summer time lie ahead
DAY = timedelta(days=1)
KIND_IDS: dict[str, list[Any]] = {
    "integer": [0, 1, 2**53 - 1, 2**53, 2**53 + 1, 2**64 - 1],
    "string": ["", "0", "00", " a", "a ", "é", "e\u0301", "\U0001f4e7", "A", "a"],
}


def feature_set(kind: IdKind, window: int, distinct_limit: int = 256) -> FeatureSet:
    text = f"""
feature_set: random
version: 1
account_id: {kind}
accounts: {{table: accounts, key: id, created_at: created, deleted_at: deleted, immutable: [plan]}}
events: [{{table: mails, key: id, event_at: at, known_at: known, distinct_limit: {distinct_limit}}}]
features:
  n: {{count: mails, window: {window}d}}
  n_ever: {{count: mails}}
  total: {{sum: mails.bytes, window: {window}d}}
  least: {{min: mails.bytes, window: {window}d}}
  most: {{max: mails.spamminess, window: {window}d}}
  mean: {{mean: mails.bytes, window: {window}d}}
  recipients: {{distinct: mails.recipient, window: {window}d}}
  active: {{days_active: mails, window: {window}d}}
  quiet: {{time_since: mails, window: {window}d}}
  share: {{ratio: [n, n_ever]}}
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


def reference(events: list[dict[str, Any]], account: dict[str, Any], as_of: datetime, window: int) -> dict[str, Any]:
    """What the definitions say, for one account, in plain Python and pandas."""
    rows = pd.DataFrame(events, columns=["id", "at", "late", "bytes", "spamminess", "recipient"], dtype=object)
    rows = rows[np.array([key == account["account_id"] for key in rows["id"]], dtype=bool)]
    at = [START + timedelta(seconds=second) for second in rows["at"]]
    known = [moment + timedelta(seconds=late) for moment, late in zip(at, rows["late"], strict=True)]
    ever = [number for number in range(len(rows)) if at[number] < as_of and known[number] < as_of]
    inside = [number for number in ever if at[number] >= as_of - window * DAY]
    numbers = [value for value in rows["bytes"].iloc[inside] if value is not None]
    spam = [value for value in rows["spamminess"].iloc[inside] if value is not None and not math.isnan(value)]
    created = account["created_at"]
    return {
        "n": len(inside),
        "n_ever": len(ever),
        "total": sum(numbers),
        "least": min(numbers, default=math.nan),
        "most": max(spam, default=math.nan),
        "mean": sum(numbers) / len(numbers) if numbers else math.nan,
        "recipients": len({value for value in rows["recipient"].iloc[inside] if value is not None}),
        "active": len({at[number].date() for number in inside}),
        "quiet": (as_of - max(at[number] for number in inside)) / DAY if inside else math.nan,
        "share": len(inside) / len(ever) if ever else math.nan,
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


@settings(max_examples=60, deadline=None)
@given(
    LOGS,
    st.integers(1, 14),
    st.integers(0, 14),
)
def test_features_equal_the_slow_reference(kind_and_events: tuple[IdKind, list[dict[str, Any]]], window: int, day: int) -> None:
    kind, events = kind_and_events
    as_of, features = START + day * DAY, feature_set(kind, window)
    frame = frames([as_table(events, kind)], [accounts_table(kind)], features, as_of)
    expected = [
        {"account_id": account["account_id"], **reference(events, account, as_of, window)}
        for account in accounts_table(kind).to_pylist()
        if (account["created_at"] is None or account["created_at"] < as_of)
        and (account["deleted_at"] is None or account["deleted_at"] > as_of)
    ]
    assert frame["account_id"].to_pylist() == [row["account_id"] for row in expected]
    for name in features.names:
        found = frame[name].to_numpy().astype(np.float64)
        np.testing.assert_array_equal(found, np.array([row[name] for row in expected], np.float64), err_msg=name)


@settings(max_examples=25, deadline=None)
@given(LOGS, st.integers(1, 14), st.lists(st.integers(0, 16), min_size=2, max_size=4), st.integers(0, 40))
def test_one_preparation_serves_any_as_ofs_in_any_order(
    kind_and_events: tuple[IdKind, list[dict[str, Any]]], window: int, days: list[int], cut: int
) -> None:
    kind, events = kind_and_events
    features, accounts = feature_set(kind, window), accounts_table(kind)
    rolled = pa.concat_tables([roll_up(as_table(piece, kind), features, "mails") for piece in (events[:cut], events[cut:])])
    prepared = {"mails": prepare(accounts["account_id"].combine_chunks(), sort_by_key(rolled), features, "mails")}
    for day in days:
        frame = make_frame(accounts, prepared, START + day * DAY, features)
        for account, row in zip(accounts.to_pylist(), frame.to_pylist(), strict=True):
            expected = reference(events, account, START + day * DAY, window)
            np.testing.assert_array_equal([row[name] for name in features.names], [expected[name] for name in features.names])


@settings(max_examples=40, deadline=None)
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
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 200)), min_size=1, max_size=300), st.integers(1, 6))
def test_distinct_is_exact_up_to_the_limit_and_an_estimate_free_of_cut_beyond(
    values: list[tuple[int, int]], n_pieces: int
) -> None:
    features = feature_set("integer", 14, distinct_limit=16)
    events = [
        {"id": 1, "at": day * 86_400, "late": 0, "bytes": None, "spamminess": None, "recipient": f"r{value}"}
        for day, value in values
    ]
    accounts = accounts_table("integer")
    as_of = START + 10 * DAY
    whole = frames([as_table(events, "integer")], [accounts], features, as_of)["recipients"].to_pylist()[1]
    cut = frames([as_table(events[part::n_pieces], "integer") for part in range(n_pieces)], [accounts], features, as_of)[
        "recipients"
    ].to_pylist()[1]
    truth = len({value for _, value in values})
    assert whole == cut
    assert whole == truth if truth <= 16 else 0.2 * truth < whole < 5 * truth
