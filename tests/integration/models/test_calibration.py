"""Calibration: exact, the same bits however rows are cut, and no order ever turned around."""

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

from batchscore.models.calibration import Isotonic, Sigmoid
from batchscore.models.certificate import verify
from batchscore.models.contract import Matrix, conform
from batchscore.models.loading import load_scorer
from batchscore.models.xgboost_scorer import calibrated, sigmoid
from batchscore.plan import Reference

KNOTS = Isotonic(margins=(-3.0, -1.0, 0.5, 2.0), scores=(0.01, 0.02, 0.02, 0.9))
PLATT = Sigmoid(slope=1.7, intercept=-0.3)
ANY_BITS = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)


def scores(calibration: Sigmoid | Isotonic, margins: Matrix) -> Matrix:
    return calibrated(margins, calibration, nthread=1)


def test_knots_are_hit_and_beyond_them_it_is_level() -> None:
    found = scores(KNOTS, np.array([-1e30, -3, -2, -1, 0, 0.5, 1.25, 2, np.inf, np.nan], np.float32))
    expected = np.array([0.01, 0.01, 0.015, 0.02, 0.02, 0.02, 0.46, 0.9, 0.9, np.nan], np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[[1, 3, 5, 7]].tobytes() == np.array([0.01, 0.02, 0.02, 0.9], np.float32).tobytes()


def test_platt_is_one_product_one_sum_and_xgboosts_sigmoid() -> None:
    margins = np.linspace(-20, 20, 1_001, dtype=np.float32)
    logits = np.array([np.float32(np.float32(value * np.float32(1.7)) + np.float32(-0.3)) for value in margins], np.float32)
    assert scores(PLATT, margins).tobytes() == sigmoid(logits, nthread=1).tobytes()


@pytest.mark.parametrize("calibration", [KNOTS, PLATT])
def test_order_never_turns_and_scores_are_probabilities(calibration: Sigmoid | Isotonic) -> None:
    found = scores(calibration, np.sort(ANY_BITS[np.isfinite(ANY_BITS)]))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


@given(knots=st.lists(st.tuples(st.floats(-1e6, 1e6, width=32), st.floats(0, 1, width=32)), min_size=2, max_size=20))
def test_any_knots_that_are_taken_never_turn_an_order(knots: list[tuple[float, float]]) -> None:
    margins = sorted({margin for margin, _ in knots})
    if len(margins) < 2:
        return
    try:
        made = Isotonic(margins=tuple(margins), scores=tuple(sorted(score for _, score in knots)[: len(margins)]))
    except ValidationError:
        assert min(np.diff(np.asarray(margins, np.float32))) < 1e-37  # nothing else is wrong with them
        return
    x = np.asarray(margins, np.float32)
    near = np.sort(
        np.concatenate([x, np.nextafter(x, np.float32(-np.inf)), np.nextafter(x, np.float32(np.inf)), (x[1:] + x[:-1]) / 2])
    )
    found = made.score(near)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()


def test_knots_whose_rise_is_no_float_are_refused() -> None:
    with pytest.raises(ValidationError, match="leave one out"):
        Isotonic(margins=(0.0, 1.401298464324817e-45), scores=(0.0, 1.0))


@pytest.mark.parametrize("calibration", [KNOTS, PLATT])
@given(cut=st.integers(0, 20_000))
def test_a_cut_changes_no_bit(calibration: Sigmoid | Isotonic, cut: int) -> None:
    margins = ANY_BITS[np.isfinite(ANY_BITS)]
    parts = [scores(calibration, margins[:cut]), scores(calibration, margins[cut:])]
    assert np.concatenate(parts).tobytes() == scores(calibration, margins).tobytes()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Sigmoid, {"slope": 0.0, "intercept": 0.0}),
        (Sigmoid, {"slope": -1.0, "intercept": 0.0}),
        (Sigmoid, {"slope": float("nan"), "intercept": 0.0}),
        (Sigmoid, {"slope": 1.0, "intercept": float("inf")}),
        (Isotonic, {"margins": (0.0, 1.0), "scores": (0.5, 0.4)}),
        (Isotonic, {"margins": (1.0, 0.0), "scores": (0.4, 0.5)}),
        (Isotonic, {"margins": (1.0, 1.0 + 1e-12), "scores": (0.4, 0.5)}),
        (Isotonic, {"margins": (0.0, 1.0), "scores": (0.4, 1.5)}),
        (Isotonic, {"margins": (0.0, 1.0, 2.0), "scores": (0.4, 0.5)}),
        (Isotonic, {"margins": (0.0,), "scores": (0.4,)}),
    ],
)
def test_what_could_turn_an_order_or_leave_the_unit_interval_is_refused(kind: type[Any], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**values)


@pytest.mark.parametrize("calibration", [KNOTS, PLATT])
def test_a_packed_calibration_is_in_every_score_and_in_the_golden_rows(
    pack: Callable[..., Reference],
    booster: xgb.Booster,
    make_rows: Callable[..., pa.Table],
    tmp_path: Path,
    calibration: Sigmoid | Isotonic,
) -> None:
    plain = load_scorer(pack(booster, tmp_path / "plain"))
    scorer = load_scorer(pack(booster, tmp_path / "b", about={"calibration": calibration}))
    margins = scorer.margin(conform(make_rows(100, seed=4), scorer.names))
    assert margins.tobytes() == plain.margin(conform(make_rows(100, seed=4), scorer.names)).tobytes()
    assert scorer.score_of(margins).tobytes() == scores(calibration, margins).tobytes()
    assert scorer.score_of(margins).tobytes() != plain.score_of(margins).tobytes()
    assert verify(tmp_path / "b").scorer == scorer.name == "compiled"
