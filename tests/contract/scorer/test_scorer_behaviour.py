"""What every scorer must do, whatever computes it: the bits of XGBoost, by name, and no silent score.

`SCORERS` holds the implementations; each is made from a packed bundle.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscore.errors import AttemptFailed, Refused
from batchscore.models.bundle import ReasonTemplate, read_checked
from batchscore.models.contract import Frame, Matrix, conform
from batchscore.models.golden import N_RIDERS
from batchscore.models.loading import fastest_scorer
from batchscore.models.machine import this_machine
from batchscore.models.pack import About, pack_bundle
from batchscore.models.scorer import Scorer, require_riders
from batchscore.models.xgboost_scorer import XGBoostScorer
from batchscore.plan import Reference

NAMES = tuple(f"f{number}" for number in range(8))


def xgboost_scorer(reference: Reference, nthread: int) -> Scorer:
    return XGBoostScorer(read_checked(reference), nthread=nthread)


def compiled_scorer(reference: Reference, nthread: int) -> Scorer:
    checked = read_checked(reference)
    return fastest_scorer(checked, XGBoostScorer(checked, nthread=nthread))


SCORERS: dict[str, Callable[[Reference, int], Scorer]] = {"xgboost": xgboost_scorer, "compiled": compiled_scorer}
SHAPES: dict[str, dict[str, Any]] = {
    "shallow": {"max_depth": 2},
    "deep": {"max_depth": 8, "min_child_weight": 0},
    "leaf-wise": {"grow_policy": "lossguide", "max_leaves": 31, "max_depth": 0, "tree_method": "hist"},
    "forest": {"num_parallel_tree": 3, "subsample": 0.6, "seed": 1},
    "far base": {"base_score": 0.001, "max_depth": 3},
}


def rows(n: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, len(NAMES))).astype(np.float32)
    values[:, 1] = np.round(values[:, 1] * 2)
    values[random.random(values.shape) < 0.3] = np.nan
    return pa.table({name: values[:, place] for place, name in enumerate(NAMES)})


@dataclass(frozen=True)
class Case:
    booster: xgb.Booster
    reference: Reference
    make: Callable[[Reference, int], Scorer]
    scorer: Scorer
    rounds: tuple[int, int]

    def expected(self, table: pa.Table, *, margin: bool) -> Matrix:
        values = np.column_stack([table[name].to_numpy() for name in NAMES])
        found: Matrix = self.booster.predict(
            xgb.DMatrix(values, feature_names=list(NAMES)), output_margin=margin, iteration_range=self.rounds
        )
        return found


@pytest.fixture(scope="module", params=[(scorer, shape) for scorer in SCORERS for shape in SHAPES], ids="-".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    make, parameters = SCORERS[request.param[0]], SHAPES[request.param[1]]
    table = rows(600, seed=1)
    values = np.column_stack([table[name].to_numpy() for name in NAMES])
    labels = (np.nan_to_num(values[:, 0]) * np.nan_to_num(values[:, 1]) > 0.1).astype(float)
    data = xgb.DMatrix(values, labels, feature_names=list(NAMES))
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1, **parameters}, data, 12)
    rounds = (0, 9)
    folder: Path = tmp_path_factory.mktemp("bundles") / "bundle"
    about = About(
        name="m", reasons={name: ReasonTemplate(code="c", sentence="{value}") for name in NAMES}, iteration_range=rounds
    )
    reference = pack_bundle(booster, folder, features=NAMES, feature_set_digest="0" * 64, golden=rows(64, seed=2), about=about)
    return Case(booster, reference, make, make(reference, 1), rounds)


def test_a_scorer_says_who_computes(case: Case) -> None:
    assert case.scorer.name in SCORERS
    assert SCORERS[case.scorer.name] is case.make
    assert case.scorer.n_fallbacks == 0


def test_margins_and_scores_have_the_bits_of_xgboost(case: Case) -> None:
    table = rows(3_000, seed=3)
    margins = case.scorer.margin(conform(table, case.scorer.names))
    scores = case.scorer.score_of(margins)
    assert margins.dtype == scores.dtype == np.float32
    assert margins.shape == scores.shape == (3_000,)
    assert margins.tobytes() == case.expected(table, margin=True).tobytes()
    assert scores.tobytes() == case.expected(table, margin=False).tobytes()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(NAMES), cuts=st.lists(st.integers(0, 500), max_size=5), seed=st.integers(0, 5))
def test_order_of_columns_and_cut_of_rows_change_no_bit(case: Case, order: list[str], cuts: list[int], seed: int) -> None:
    table = rows(500, seed)
    whole = case.scorer.margin(conform(table, NAMES))
    edges = [0, *sorted(cuts), 500]
    parts = [table.select(order).slice(low, high - low) for low, high in pairwise(edges)]
    assert np.concatenate([case.scorer.margin(conform(part, NAMES)) for part in parts]).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop_columns(["f3"]), "feature_contract"),
        (lambda table: table.rename_columns(["F0", *NAMES[1:]]), "feature_contract"),
        (lambda table: table.append_column("f3", table["f2"]), "column_duplicate"),
        (lambda table: table.set_column(0, "f0", table["f0"].cast(pa.string())), "column_type"),
        (lambda table: table.set_column(0, "f0", pa.nulls(len(table))), "column_type"),
    ],
    ids=["dropped", "other case", "doubled", "text", "all null without a type"],
)
def test_wrong_columns_never_score(case: Case, change: Callable[[pa.Table], pa.Table], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        case.scorer.margin(conform(change(rows(5, seed=0)), case.scorer.names))
    assert caught.value.reason == reason


def test_a_frame_of_other_names_never_scores(case: Case) -> None:
    frame = conform(rows(5, seed=0), NAMES[::-1])
    for call in (case.scorer.margin, case.scorer.contributions):
        with pytest.raises(Refused, match="feature_contract"):
            call(frame)


def test_a_row_with_an_infinite_feature_gets_no_score_and_harms_no_other(case: Case) -> None:
    table = rows(4, seed=0)
    endless = table.set_column(0, "f0", pa.array([1.0, np.inf, 1e39, 2.0]))
    finite = table.set_column(0, "f0", pa.array([1.0, 5.0, 5.0, 2.0]))
    frame = conform(endless, NAMES)
    margins, without = case.scorer.margin(frame), case.scorer.margin(conform(finite, NAMES))
    assert np.isnan(margins).tolist() == np.isnan(case.scorer.score_of(margins)).tolist() == [False, True, True, False]
    assert margins[[0, 3]].tobytes() == without[[0, 3]].tobytes()
    assert np.isnan(case.scorer.contributions(frame)).all(axis=1).tolist() == [False, True, True, False]


def test_no_rows_give_no_scores(case: Case) -> None:
    frame = conform(rows(0, seed=0), NAMES)
    assert case.scorer.score_of(case.scorer.margin(frame)).shape == (0,)
    assert case.scorer.contributions(frame).shape == (0, len(NAMES) + 1)


def test_contributions_of_a_row_add_up_to_its_margin(case: Case) -> None:
    frame = conform(rows(700, seed=4), NAMES)
    found = case.scorer.contributions(frame)
    assert found.shape == (700, len(NAMES) + 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1, dtype=np.float64), case.scorer.margin(frame), atol=1e-5)


def test_contributions_have_the_bits_of_xgboost_however_many_rows_are_asked_for(case: Case) -> None:
    frame = conform(rows(700, seed=5), NAMES)
    matrix = xgb.DMatrix(frame.matrix, missing=np.nan, feature_names=list(NAMES))
    expected = case.booster.predict(matrix, pred_contribs=True, iteration_range=case.rounds)
    scorer = case.make(case.reference, 1)
    assert scorer.contributions(frame.take(np.arange(2))).tobytes() == expected[:2].tobytes()
    assert scorer.contributions(frame).tobytes() == expected.tobytes()
    assert scorer.explained_by == scorer.name
    assert scorer.contributions(frame.take(np.arange(2))).tobytes() == expected[:2].tobytes()
    assert scorer.n_fallbacks == 0


def test_the_score_of_any_margin_is_xgboosts(case: Case) -> None:
    random = np.random.default_rng(0)
    any_bits = random.integers(0, 2**32, 50_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.concatenate([any_bits[np.isfinite(any_bits)], random.uniform(-110, 110, 50_000).astype(np.float32)])
    rows_without_features = xgb.DMatrix(np.full((len(values), len(NAMES)), np.nan, np.float32), feature_names=list(NAMES))
    rows_without_features.set_base_margin(values)
    margins = case.booster.predict(rows_without_features, output_margin=True, iteration_range=case.rounds)
    scores = case.booster.predict(rows_without_features, iteration_range=case.rounds)
    assert case.scorer.score_of(margins).tobytes() == scores.tobytes()


def test_scores_are_probabilities_at_the_far_ends(case: Case) -> None:
    extremes = np.array([-3.4e38, -200, -104, -88.8, -88.7, -0.0, 0.0, 1e-45, 16.6, 17.4, 88.7, 200, 3.4e38], np.float32)
    scores = case.scorer.score_of(extremes)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(scores) >= 0).all()
    assert scores[5] == scores[6] == np.float32(0.5)


def test_the_number_of_threads_changes_no_bit(case: Case) -> None:
    frame = conform(rows(2_000, seed=6), NAMES)
    assert case.make(case.reference, 2).margin(frame).tobytes() == case.scorer.margin(frame).tobytes()


def test_one_scorer_may_be_shared_between_threads(case: Case) -> None:
    frames = [conform(rows(300, seed), NAMES) for seed in range(8)]

    def work(frame: Frame) -> bytes:
        margins = case.scorer.margin(frame)
        few = Frame(frame.names, frame.matrix[:5], frame.nonfinite[:5])
        return b"".join(found.tobytes() for found in (margins, case.scorer.score_of(margins), case.scorer.contributions(few)))

    alone = [work(frame) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, frames)) == alone


def test_golden_rows_ride_along_and_find_a_worker_gone_bad(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    require_riders(case.scorer)
    assert 0 < len(case.scorer.riders.frame) <= N_RIDERS
    wrong = np.nextafter(case.scorer.riders.margins, np.float32(np.inf))
    monkeypatch.setattr(case.scorer, "riders", replace(case.scorer.riders, margins=wrong))
    with pytest.raises(AttemptFailed, match=re.escape(this_machine().cpu)) as caught:
        require_riders(case.scorer)
    assert caught.value.reason == "golden_mismatch"
