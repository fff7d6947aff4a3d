"""Filters as they are written, told and asked of rows; what they keep of whole tables is tested where they are read."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from batchscore.features.where import mask_of, refusal_of
from batchscore.where import Where, digest_of_where, outline_of, sentence_of

ROWS = pa.table(
    {"closed": pa.array([None, 1, None, 2]), "ratio": pa.array([0.5, None, float("nan"), 1.0]), "plan": ["a", "b", None, "a"]}
)


def filter_of(written: Any) -> Where:
    return TypeAdapter(Where).validate_python(written)


@pytest.mark.parametrize(
    ("written", "keeps"),
    [
        ([["closed", "is", None]], [True, False, True, False]),
        ([["closed", "is not", None]], [False, True, False, True]),
        ([["ratio", "is", None]], [False, True, True, False]),
        ([["closed", "is", None], ["plan", "!=", "b"]], [True, False, False, False]),
        ([[["closed", "==", 2]], [["plan", "is", None]]], [False, False, True, True]),
    ],
)
def test_null_is_asked_for_and_satisfies_nothing_else(written: Any, keeps: list[bool]) -> None:
    assert mask_of(ROWS, filter_of(written)).tolist() == keeps


def test_a_column_of_any_type_may_be_asked_for_null() -> None:
    (asked,), (compared,) = filter_of([["at", "is", None]])[0], filter_of([["at", "==", 1]])[0]
    assert refusal_of(pa.timestamp("us"), asked) is None
    assert refusal_of(pa.timestamp("us"), compared) is not None


@pytest.mark.parametrize(
    ("kind", "value", "is_compared"),
    [
        (pa.int64(), 2**63 - 1, True), (pa.int64(), 2**63, False), (pa.uint64(), 2**64 - 1, True), (pa.uint64(), -1, False),
        (pa.float64(), 2**53, True), (pa.float64(), 1e300, True), (pa.float64(), 2**53 + 1, False),
        (pa.float64(), 10**400, False),
        (pa.decimal128(10, 2), 10**56, True), (pa.decimal128(10, 2), 10**57, False), (pa.decimal128(10, 2), -1e300, False),
    ],
)  # fmt: skip
def test_a_number_is_compared_where_it_has_an_exact_place(kind: pa.DataType, value: float, is_compared: bool) -> None:
    (condition,) = filter_of([["a", "<", value]])[0]
    assert (refusal_of(kind, condition) is None) == is_compared
    if is_compared:
        assert mask_of(pa.table({"a": pa.array([0, None], kind)}), filter_of([["a", "<", value]])).tolist() == [True, False]


@pytest.mark.parametrize(
    "condition",
    [
        ["a", "is", 1], ["a", "==", None], ["a", "in", None], ["a", "is not", []], ["a", "=", 1], ["a", "is"],
        ["a", "==", "\ud800"], ["a", "in", ["b", "\udfff"]], ["\ud800", "==", 1],
        ["a", "<", float("inf")], ["a", "==", float("nan")],
    ],
)  # fmt: skip
def test_conditions_that_mean_nothing_are_refused(condition: list[Any]) -> None:
    with pytest.raises(ValidationError):
        filter_of([condition])


def test_an_outline_names_columns_and_no_value() -> None:
    where = filter_of([[["plan", "in", ["canary", "b"]], ["closed", "is", None]], [["ratio", ">", 8675309]]])
    said = outline_of(where)
    assert said == f"plan in (2) and closed is null, or ratio > …; {digest_of_where(where)[:8]}"
    assert sentence_of(where) == "where plan is one of canary, b and closed is missing, or ratio > 8675309"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["plan", "==", "a"], "a list of conditions"),
        ("plan = 'a'", "a list of conditions"),
        ([[["plan", "==", "a"]], ["plan", "==", "b"]], "a list of conditions"),
        ([[]], "lets everything through"),
        ([[True, "==", 1]], "a column, an operator and a value"),
        ([["at", "==", date(2026, 1, 1)]], "in quotes if it is text"),
        ([["at", "in", [{"a": 1}]]], "in quotes if it is text"),
        ([["at", "==", float("inf")]], "infinite"),
        ([["at", "in", [1.0, float("nan")]]], "infinite"),
    ],
)
def test_what_is_no_filter_is_told_in_one_line(written: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        filter_of(written)
    assert refused.value.error_count() == 1


def test_a_filter_outlives_json() -> None:
    for written in ([["a", "in", [1, 2]], ["b", "is", None]], [[["a", "==", 1]], [["b", "!=", "x"]]], []):
        where = filter_of(written)
        kind = TypeAdapter(Where)
        assert kind.validate_json(kind.dump_json(where)) == where
        assert kind.validate_python(where) == where
