"""A frame unlike what the model knows is told of, or held back; a right one passes without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from batchscore.errors import ALERTS, PartitionError, Refused, alert_meaning
from batchscore.models.bounds import MIN_ROWS, Bounds, check_frame, expected_of
from batchscore.models.bundle import Feature, read_manifest
from batchscore.models.contract import Frame, conform
from batchscore.plan import Reference


def frame(*columns: Any) -> Frame:
    names = [f"f{number}" for number in range(len(columns))]
    return conform(pa.table({name: pa.array(column, pa.float32()) for name, column in zip(names, columns, strict=True)}), names)


def features(*bounds: Bounds | None, limits: bool = False) -> list[Feature]:
    kind = "limits" if limits else "expected"
    return [Feature.model_validate({"name": f"f{number}", kind: bound}) for number, bound in enumerate(bounds)]


REFERENCE = frame(np.linspace(0, 100, 1_000), [*[None] * 300, *range(700)], [None] * 1_000)
EXPECTED = expected_of(REFERENCE, categorical=())


def alerts(*columns: Any) -> tuple[str, ...]:
    return check_frame(frame(*columns), features(*EXPECTED.values()), where="here")


def test_what_is_expected_comes_from_the_reference() -> None:
    assert EXPECTED["f0"] == Bounds(max_missing=0.1, low=0, high=100, max_outside=0.01)
    assert EXPECTED["f1"].max_missing == 0.4
    assert EXPECTED["f2"] == Bounds(max_missing=1)
    assert expected_of(REFERENCE, categorical=["f0"])["f0"] == Bounds(max_missing=0.1)


def test_the_reference_itself_and_a_part_of_it_are_as_expected() -> None:
    assert check_frame(REFERENCE, features(*EXPECTED.values()), where="here") == ()


def test_more_missing_and_more_out_of_range_are_told_by_feature() -> None:
    found = alerts([*[None] * 200, *[50] * 800], [*[-1] * 11, *[5] * 989], [1] * 1_000)
    assert found == ("feature_nulls f0", "feature_range f1")
    assert all(alert.partition(" ")[0] in ALERTS for alert in found)
    assert alert_meaning(found[0]).endswith(": f0")


@given(n_missing=st.integers(0, 200), n_outside=st.integers(0, 50))
def test_an_alert_comes_exactly_beyond_the_bound(n_missing: int, n_outside: int) -> None:
    n_rows = 1_000
    column = [*[None] * n_missing, *[101.0] * n_outside, *[50.0] * (n_rows - n_missing - n_outside)]
    found = check_frame(frame(column), features(EXPECTED["f0"]), where="here")
    assert ("feature_nulls f0" in found) == (n_missing > 100)
    assert ("feature_range f0" in found) == (n_outside > 0.01 * (n_rows - n_missing))


def test_a_handful_of_rows_says_nothing_of_shares() -> None:
    assert check_frame(frame([None] * (MIN_ROWS - 1)), features(EXPECTED["f0"]), where="here") == ()
    assert check_frame(frame([None] * MIN_ROWS), features(EXPECTED["f0"]), where="here") == ("feature_nulls f0",)


def test_a_limit_holds_the_partition_back_and_names_every_feature() -> None:
    limits = features(Bounds(max_missing=0.5), Bounds(low=0, high=10), None, limits=True)
    with pytest.raises(PartitionError) as caught:
        check_frame(frame([None] * 1_000, [*[5] * 999, 10.5], [None] * 1_000), limits, where="as-of")
    assert caught.value.reason == "feature_limit"
    assert [problem.where for problem in caught.value.problems] == ["f0", "f1"]
    assert check_frame(frame([1] * 1_000, [10] * 1_000, [None] * 1_000), limits, where="as-of") == ()


@pytest.mark.parametrize("values", [{"max_missing": 1.5}, {"low": 2, "high": 1}, {"low": float("nan")}, {"max_outside": -1}])
def test_bounds_that_mean_nothing_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Bounds(**values)


def test_packing_keeps_what_the_reference_shows_and_the_limits_declared(
    pack: Callable[..., Reference], booster: xgb.Booster, make_rows: Callable[..., pa.Table], tmp_path: Path
) -> None:
    pack(booster, tmp_path / "b", reference=make_rows(5_000, seed=2), about={"limits": {"age_days": {"low": -9_999.0}}})
    manifest = read_manifest(tmp_path / "b").manifest
    assert all(feature.expected is not None and 0.1 < feature.expected.max_missing < 0.3 for feature in manifest.features)
    assert {feature.name for feature in manifest.features if feature.limits} == {"age_days"}
    assert check_frame(conform(make_rows(400, seed=3), manifest.names), manifest.features, where="here") == ()
    with pytest.raises(Refused, match="did you mean 'age_days'"):
        pack(booster, tmp_path / "c", about={"limits": {"age_day": {}}})
