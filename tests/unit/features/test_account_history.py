"""A history as of a date equals a slow reference in pandas, however its rows are ordered and cut, and sees nothing later."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.document import parse_document
from batchscore.errors import Refused
from batchscore.features.accounts import Accounts
from batchscore.features.feature_set import FeatureSet
from batchscore.features.frame import make_frame, make_frames, population
from batchscore.features.poison import are_equal, poisoned_accounts
from batchscore.keys import ID_TYPES, IdKind
from batchscore.sources.canonical import Place, canonical_accounts

MOMENT = pa.timestamp("us", tz="UTC")
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KIND_IDS: dict[IdKind, list[Any]] = {"integer": [0, 2**53, 2**53 + 1, 2**64 - 1], "string": ["", "0", "00", "\U0001f4e7"]}
TEXT = """feature_set: told
version: 1
account_id: {kind}
accounts: {{table: accounts, key: id, created_at: made, deleted_at: gone, history: {{valid_from: since, valid_to: until}}}}
features:
  plan: {{column: plan}}
  rate: {{column: rate}}
  age: {{age: created_at}}
"""
FEATURES: dict[IdKind, FeatureSet] = {
    kind: parse_document(TEXT.format(kind=kind), FeatureSet, name="f.yaml", check=FeatureSet.mistakes) for kind in KIND_IDS
}
HALF_DAYS = st.integers(0, 24)
AS_OFS = st.lists(st.integers(0, 13), min_size=1, max_size=4, unique=True)


@st.composite
def histories(draw: st.DrawFn) -> tuple[IdKind, list[dict[str, Any]]]:
    """Rows of a few accounts whose intervals never overlap; some have gaps, some end, some begin late."""
    kind: IdKind = draw(st.sampled_from(sorted(KIND_IDS)))
    rows = []
    for account in KIND_IDS[kind]:
        edges = sorted(draw(st.sets(HALF_DAYS, max_size=6)))
        for since, until in zip(edges, [*edges, None][1:], strict=True):
            if draw(st.booleans()) or since == 0:
                ends = draw(st.integers(since + 1, until or 30)) if draw(st.booleans()) else until
                rows.append(
                    {
                        "id": account,
                        "since": START + since * DAY / 2,
                        "until": None if ends is None else START + ends * DAY / 2,
                        "made": draw(st.none() | HALF_DAYS.map(lambda half: START + half * DAY / 2)),
                        "gone": draw(st.none() | HALF_DAYS.map(lambda half: START + half * DAY / 2)),
                        "plan": draw(st.none() | st.integers(0, 9)),
                        "rate": draw(st.floats(-9, 9)),
                    }
                )
    return kind, rows


def canonical(rows: list[dict[str, Any]], kind: IdKind) -> pa.Table:
    types = {"id": ID_TYPES[kind], "plan": pa.int32(), "rate": pa.float64()}
    names = ("id", "since", "until", "made", "gone", "plan", "rate")
    raw = pa.table({name: pa.array([row[name] for row in rows], types.get(name, MOMENT)) for name in names})
    return canonical_accounts(raw, FEATURES[kind].accounts, ["plan", "rate"], kind, Place("a.parquet")).table


def reference(rows: list[dict[str, Any]], as_of: datetime) -> dict[Any, tuple[float, float, float]]:
    """Account → (plan, rate, age) of those that existed at ``as_of``: a row at a time, as the rule is written."""
    found = {}
    for account, held in pd.DataFrame(rows).astype(object).groupby("id"):
        ordered = held.sort_values("since")
        begun = ordered[[since < as_of for since in ordered["since"]]]
        made, gone, plan, rate = ordered.iloc[0]["made"], None, math.nan, math.nan
        if len(begun):
            latest = begun.iloc[-1]
            made, gone = latest["made"], latest["gone"]
            if pd.isna(latest["until"]) or latest["until"] >= as_of:
                plan, rate = (math.nan if pd.isna(latest[name]) else float(latest[name]) for name in ("plan", "rate"))
        if (pd.isna(made) or made < as_of) and (gone is None or pd.isna(gone) or gone > as_of):
            found[account] = plan, rate, math.nan if pd.isna(made) else (as_of - made) / DAY
    return found


@settings(max_examples=40, deadline=None)
@given(histories(), AS_OFS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_history_as_of_a_date_equals_the_slow_reference_however_it_is_cut(
    told: tuple[IdKind, list[dict[str, Any]]], days: list[int], n_pieces: int, order: Random
) -> None:
    kind, rows = told
    features, as_ofs = FEATURES[kind], [START + day * DAY for day in sorted(days)]
    whole = Accounts.of(canonical(rows, kind), features.accounts)
    shuffled = order.sample(rows, len(rows))
    size = len(rows) // n_pieces + 1
    pieces = [canonical(shuffled[at : at + size], kind) for at in range(0, len(rows) + 1, size)]
    cut = Accounts.of(pa.concat_tables(pieces), features.accounts)
    for as_of, frame, again in zip(
        as_ofs, make_frames(whole, {}, as_ofs, features), make_frames(cut, {}, as_ofs, features), strict=True
    ):
        assert are_equal(frame, again)
        there = population(whole.at(as_of), as_of)
        found = {
            row["account_id"]: tuple(math.nan if row[name] is None else float(row[name]) for name in ("plan", "rate", "age"))
            for row, is_there in zip(frame.to_pylist(), there, strict=True)
            if is_there
        }
        assert repr(found) == repr(dict(sorted(reference(rows, as_of).items(), key=_in_order) if rows else {}))
    assert sorted([*whole.ids.to_pylist(), *whole.repeated.to_pylist()]) == sorted(row["id"] for row in rows)


def _in_order(pair: tuple[Any, Any]) -> Any:
    return pair[0].encode() if isinstance(pair[0], str) else pair[0]


@settings(max_examples=40, deadline=None)
@given(histories(), st.integers(0, 13))
def test_what_a_history_says_as_of_a_date_does_not_see_what_is_poisoned(
    told: tuple[IdKind, list[dict[str, Any]]], day: int
) -> None:
    kind, rows = told
    features, as_of = FEATURES[kind], START + day * DAY
    accounts = Accounts.of(canonical(rows, kind), features.accounts)
    poison = Accounts(poisoned_accounts(accounts.rows, as_of, features.accounts), history=True)
    before, after = accounts.at(as_of), poison.at(as_of)
    assert are_equal(make_frame(before, {}, as_of, features), make_frame(after, {}, as_of, features))
    assert (population(before, as_of) == population(after, as_of)).all()
    n_known = sum(row["since"] < as_of for row in rows)
    assert len(poison.rows) >= 2 * n_known


def rows_of(*intervals: tuple[int, int | None]) -> list[dict[str, Any]]:
    """Rows of account 0 that hold from one day to another; ``plan`` numbers them."""
    return [
        {
            "id": 0,
            "since": START + since * DAY,
            "until": None if until is None else START + until * DAY,
            "made": START,
            "gone": None,
            "plan": number,
            "rate": 0.0,
        }
        for number, (since, until) in enumerate(intervals)
    ]


def test_the_guard_sees_a_join_that_looks_ahead() -> None:
    accounts = Accounts.of(canonical(rows_of((0, 4), (4, None)), "integer"), FEATURES["integer"].accounts)
    poison = Accounts(poisoned_accounts(accounts.rows, START + 4 * DAY, FEATURES["integer"].accounts), history=True)
    assert accounts.at(START + 5 * DAY)["plan"].to_pylist() != poison.at(START + 5 * DAY)["plan"].to_pylist()


def test_a_row_is_known_once_it_has_begun_and_holds_to_its_end() -> None:
    accounts = Accounts.of(canonical(rows_of((1, 3), (3, 4), (6, None)), "integer"), FEATURES["integer"].accounts)
    told = [accounts.at(START + day * DAY)["plan"].to_pylist()[0] for day in range(9)]
    assert told == [None, None, 0, 0, 1, None, None, 2, 2]


@pytest.mark.parametrize("intervals", [[(0, 3), (2, 5)], [(0, None), (2, 5)], [(0, 3), (0, 3)], [(0, 9), (2, 3)]])
def test_intervals_that_overlap_are_refused(intervals: list[tuple[int, int | None]]) -> None:
    with pytest.raises(Refused) as refused:
        Accounts.of(canonical(rows_of(*intervals), "integer"), FEATURES["integer"].accounts)
    assert refused.value.reason == "history_overlap"
    assert "until" in refused.value.remedy


def test_rows_that_hold_at_no_moment_and_rows_without_a_beginning_are_rejected() -> None:
    rows = [*rows_of((2, 2), (3, 1), (3, 4)), rows_of((0, 1))[0] | {"since": None}]
    names = ("id", "since", "until", "made", "gone", "plan", "rate")
    raw = pa.table({name: pa.array([row[name] for row in rows]) for name in names})
    read = canonical_accounts(raw, FEATURES["integer"].accounts, ["plan", "rate"], "integer", Place("a.parquet"))
    assert [(row["row"], row["code"]) for row in read.rejects.to_pylist()] == [
        (3, "null_valid_from"),
        (0, "history_empty"),
        (1, "history_empty"),
    ]
    assert read.table["plan"].to_pylist() == [2]


def test_a_history_needs_no_immutable_columns_and_its_digest_is_its_own() -> None:
    one_row = TEXT.format(kind="integer").replace(", history: {valid_from: since, valid_to: until}", ", immutable: [plan, rate]")
    without = parse_document(one_row, FeatureSet, name="f.yaml", check=FeatureSet.mistakes)
    assert "history" not in without.frozen_json()
    assert FeatureSet.thaw(FEATURES["integer"].frozen_json()) == FEATURES["integer"]
    assert without.digest != FEATURES["integer"].digest


def test_columns_that_say_when_a_row_holds_cannot_be_features() -> None:
    with pytest.raises(Refused, match="is the name of a column we make"):
        parse_document(
            TEXT.format(kind="integer").replace("{column: plan}", "{column: valid_from}"),
            FeatureSet,
            name="f.yaml",
            check=FeatureSet.mistakes,
        )
