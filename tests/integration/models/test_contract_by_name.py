"""The contract: the right columns by name, or no frame; every kind of number becomes float32 in one documented way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import Refused
from batchscore.models.contract import Frame, conform, require_names

TABLE = pa.table(
    {"a": pa.array([1.5, None, 3.0], pa.float32()), "b": pa.array([1, 2, 3], pa.int64()), "c": pa.array([True, None, False])}
)
NAMES = ("a", "b", "c")


def refusal(table: pa.Table) -> Refused:
    with pytest.raises(Refused) as caught:
        conform(table, NAMES)
    return caught.value


def bits(frame: Frame) -> bytes:
    return frame.matrix.tobytes()


def test_columns_come_in_the_models_order_as_float32_in_c_order() -> None:
    frame = conform(TABLE, NAMES)
    assert frame.names == NAMES
    assert frame.matrix.dtype == np.float32
    assert frame.matrix.flags.c_contiguous
    np.testing.assert_array_equal(frame.matrix, np.array([[1.5, 1, 1], [np.nan, 2, np.nan], [3, 3, 0]], np.float32))
    assert not frame.nonfinite.any()


@pytest.mark.parametrize("n_rows", [0, 1, 16_383, 16_384, 16_385, 40_000])
@pytest.mark.parametrize("n_columns", [1, 3, 40])
def test_the_matrix_is_its_columns_side_by_side_to_the_bit(n_rows: int, n_columns: int) -> None:
    rng = np.random.default_rng(n_rows + n_columns)
    any_bits = rng.integers(0, 2**32, (n_columns, n_rows), np.uint32).view(np.float32)  # NaNs of any payload and infinities, too
    names = [f"f{number}" for number in range(n_columns)]
    frame = conform(pa.table(dict(zip(names, any_bits, strict=True))), names)
    assert frame.matrix.flags.c_contiguous
    assert bits(frame) == np.column_stack(list(any_bits)).tobytes()


@given(order=st.permutations(["a", "b", "c", "extra"]))
def test_permuted_and_extra_columns_change_no_bit(order: list[str]) -> None:
    table = TABLE.append_column("extra", pa.array(["x", "y", "z"]))
    assert bits(conform(table.select(order), NAMES)) == bits(conform(TABLE, NAMES))


@pytest.mark.parametrize(("given_name", "nearest"), [("A", "'A'"), ("aa", "'aa'"), ("nothing like it", None)])
def test_a_renamed_or_other_case_column_is_refused_with_the_nearest_name(given_name: str, nearest: str | None) -> None:
    error = refusal(TABLE.rename_columns([given_name, "b", "c"]))
    assert error.reason == "feature_contract"
    assert error.problems[0].where == "a"
    assert (f"did you mean {nearest}" in str(error)) == (nearest is not None)


def test_every_dropped_column_is_listed_at_once() -> None:
    assert [problem.where for problem in refusal(TABLE.select(["b"])).problems] == ["a", "c"]


def test_a_doubled_feature_is_refused_but_a_doubled_stranger_is_not() -> None:
    assert refusal(TABLE.append_column("b", TABLE["b"])).reason == "column_duplicate"
    strangers = TABLE.append_column("x", TABLE["b"]).append_column("x", TABLE["a"])
    assert bits(conform(strangers, NAMES)) == bits(conform(TABLE, NAMES))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["1", "2", "3"]),
        pa.array(["1", "2", "1"]).dictionary_encode(),
        pa.array([1, 2, 3], pa.decimal128(5, 2)),
        pa.array([{"v": 1}, {"v": 2}, {"v": 3}]),
        pa.array([[1], [2], [3]]),
        pa.array([0, 1, 2], pa.timestamp("us")),
        pa.array([0, 1, 2], pa.date32()),
        pa.array([0, 1, 2], pa.duration("s")),
        pa.array([b"1", b"2", b"3"]),
        pa.nulls(3),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_is_no_number_is_refused(column: pa.Array) -> None:
    error = refusal(TABLE.set_column(0, "a", column))
    assert error.reason == "column_type"
    assert str(column.type) in str(error)


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
    ],
    ids=str,
)
def test_every_kind_of_number_gives_the_same_bits(kind: pa.DataType) -> None:
    wide = TABLE.set_column(1, "b", pa.array(np.array([1, 2, 3])).cast(kind))
    assert bits(conform(wide, NAMES)) == bits(conform(TABLE, NAMES))
    missing = conform(TABLE.set_column(1, "b", pa.array([None, None, 3], pa.int64()).cast(kind)), NAMES).matrix[:, 1]
    np.testing.assert_array_equal(missing, np.array([np.nan, np.nan, 3], np.float32))


def test_dictionary_encoded_and_chunked_numbers_give_the_same_bits() -> None:
    encoded = TABLE.set_column(1, "b", TABLE["b"].dictionary_encode()).set_column(0, "a", TABLE["a"].dictionary_encode())
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 0), TABLE.slice(1)])
    assert bits(conform(encoded, NAMES)) == bits(conform(chunked, NAMES)) == bits(conform(TABLE, NAMES))


def test_null_and_nan_are_one_missing_value() -> None:
    mixed = TABLE.set_column(0, "a", pa.array([1.5, np.nan, 3.0], pa.float64(), from_pandas=False))
    assert bits(conform(mixed, NAMES)) == bits(conform(TABLE, NAMES))


@pytest.mark.parametrize("value", [2**24 + 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**60 + 2**36 + 1])
def test_large_integers_are_rounded_once_to_the_nearest_float32(value: int) -> None:
    for column in (pa.array([value]), pa.array([value, None])):
        assert conform(pa.table({"a": column}), ["a"]).matrix[0, 0] == _nearest(value)


def _nearest(value: int) -> np.float32:
    about = np.float32(float(value))
    near = (np.nextafter(about, np.float32(-np.inf)), about, np.nextafter(about, np.float32(np.inf)))
    return min(near, key=lambda candidate: (abs(int(candidate) - value), int(candidate.view(np.uint32)) & 1))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39, -1e39, 3.4028236e38])
def test_rows_that_are_infinite_or_overflow_float32_are_marked(value: float) -> None:
    frame = conform(pa.table({"a": pa.array([1.0, value, None, 3.4e38])}), ["a"])
    assert frame.nonfinite.tolist() == [False, True, False, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=64) | st.none(), min_size=0, max_size=20))
def test_float64_is_rounded_as_numpy_does_and_only_infinite_rows_are_marked(values: list[Any]) -> None:
    frame = conform(pa.table({"a": pa.array(values, pa.float64())}), ["a"])
    with np.errstate(over="ignore"):
        expected = np.array([np.nan if value is None else value for value in values], np.float64).astype(np.float32)
    np.testing.assert_array_equal(frame.matrix[:, 0], expected)
    assert frame.nonfinite.tolist() == np.isinf(expected).tolist()


def test_a_frame_of_another_models_names_is_refused() -> None:
    with pytest.raises(Refused, match="feature_contract"):
        require_names(conform(TABLE, ("b", "a", "c")), NAMES)
