"""The compiled explainer has XGBoost's contributions to the bit on models and rows made to break it, and gives way where not."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.models import compiled_explainer
from batchscore.models.attribution import Attribution, read_attribution, read_nodes
from batchscore.models.attribution_kernel import ROWS, contributions
from batchscore.models.attribution_nodes import WIDE
from batchscore.models.bundle import CheckedBundle
from batchscore.models.compiled_explainer import CompiledExplainer
from batchscore.models.contract import Frame, Matrix, conform
from batchscore.models.forest import NotCompilable
from batchscore.models.model_file import read_model_facts
from batchscore.models.xgboost_scorer import XGBoostScorer
from tests.integration.models.random_models import N_CODES, Shape, base_margin, random_model, rows_on_the_cuts

SMALL = 8 << 20  # bytes of tables


def attribution_of(model: bytes, n_rounds: int, **limits: int) -> Attribution:
    return read_attribution(read_model_facts(model, where="model"), n_rounds, **limits)


def expected(booster: xgb.Booster, rows: Matrix, types: list[str] | None = None, **asked: Any) -> Matrix:
    matrix = xgb.DMatrix(rows, missing=np.nan, feature_names=booster.feature_names, feature_types=types, enable_categorical=True)
    found: Matrix = booster.predict(matrix, pred_contribs=True, **asked)
    return found


def rows_of(model: bytes, shape: Shape, n: int, seed: int) -> Matrix:
    """Rows on the cuts; of a categorical feature any code, also one that the model has never seen."""
    rows, chance = rows_on_the_cuts(model, n, seed), np.random.default_rng(seed)
    for place in range(shape.n_features - shape.n_categorical, shape.n_features):
        codes = chance.integers(0, 3 * N_CODES, n).astype(np.float32)
        rows[:, place] = np.where(chance.random(n) < 0.2, np.nan, np.where(chance.random(n) < 0.7, codes % N_CODES, codes))
    return rows


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    n_features, lopsided = draw(st.integers(1, 12)), draw(st.booleans())
    return Shape(
        n_features=n_features,
        n_trees=draw(st.integers(1, 8)),
        depth=draw(st.integers(0, 12 if lopsided else 10)),
        n_cuts=draw(st.sampled_from([1, 5, 100])),
        lopsided=lopsided,
        full=draw(st.floats(0.3, 1)),
        n_categorical=draw(st.integers(0, n_features)) if draw(st.booleans()) else 0,
        base_score=draw(st.sampled_from([None, 0.5, 1e-7, 0.999999])),
    )


@settings(max_examples=40, deadline=None)
@given(shape=shapes(), seed=st.integers(0, 2**32), n=st.integers(1, 80))
def test_random_models_give_xgboosts_contributions_to_the_bit(shape: Shape, seed: int, n: int) -> None:
    model, booster = random_model(shape, seed)
    rows = rows_of(model, shape, n, seed)
    try:
        attribution = attribution_of(model, shape.n_trees, max_bytes=SMALL)
    except NotCompilable:
        assert shape.depth > 6
        return
    found = contributions(attribution, rows, base_margin(model))
    assert found.tobytes() == expected(booster, rows, shape.types).tobytes()


@pytest.mark.parametrize("depth", range(11))
def test_complete_trees_of_few_features_are_exact_at_every_depth(depth: int) -> None:
    """Few features: most splits ask for one that stands above them, so paths are unwound at every place."""
    shape = Shape(n_features=3, n_trees=2, depth=depth, n_cuts=9, full=1 if depth < 9 else 0.8)
    model, booster = random_model(shape, seed=depth)
    rows = rows_on_the_cuts(model, 60, seed=depth)
    found = contributions(attribution_of(model, 2), rows, base_margin(model))
    assert found.tobytes() == expected(booster, rows).tobytes()


@pytest.mark.parametrize("n_features", [3, 40])
def test_the_deepest_trees_are_exact(n_features: int) -> None:
    shape = Shape(n_features=n_features, n_trees=2, depth=WIDE, n_cuts=9, lopsided=True)
    model, booster = random_model(shape, seed=n_features)
    rows = rows_on_the_cuts(model, 60, seed=5)
    found = contributions(attribution_of(model, 2), rows, base_margin(model))
    assert found.tobytes() == expected(booster, rows).tobytes()


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_depth": 6, "min_child_weight": 0},
        {"max_depth": 5, "monotone_constraints": "(1,-1,0,0)"},
        {"grow_policy": "lossguide", "max_leaves": 40, "max_depth": 0},
        {"num_parallel_tree": 3, "subsample": 0.6, "max_depth": 4},
        {"max_depth": 6, "gamma": 1.5, "tree_method": "exact"},  # pruned: nodes that no way leads to
        {"max_depth": 6, "interaction_constraints": "[[0,1],[1,2,3]]", "tree_method": "approx", "scale_pos_weight": 1e6},
    ],
    ids=["deep", "monotone", "leaf-wise", "forest", "pruned", "weighted"],
)
def test_contributions_of_trained_models_have_the_bits_of_xgboost(parameters: dict[str, Any]) -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=(900, 4)).astype(np.float32)
    values[chance.random(values.shape) < 0.2] = np.nan
    labels = np.nan_to_num(values[:, 0]) * np.nan_to_num(values[:, 1]) > 0.1
    data = xgb.DMatrix(values, labels, feature_names=list("abcd"))
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1, "seed": 1, **parameters}, data, 9)
    model = bytes(booster.save_raw("json"))
    for n_rounds in (9, 4):
        found = contributions(attribution_of(model, n_rounds), values[:150], base_margin(model))
        assert found.tobytes() == expected(booster, values[:150], iteration_range=(0, n_rounds)).tobytes()


def test_splits_on_sets_of_categories_that_xgboost_found_are_exact() -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=(900, 3)).astype(np.float32)
    values[:, 1:] = chance.integers(0, 300, (900, 2))
    labels = values[:, 1] % 7 + values[:, 2] % 3 + values[:, 0] > 4
    values[chance.random(values.shape) < 0.1] = np.nan
    types = ["q", "c", "c"]
    data = xgb.DMatrix(values, labels, feature_names=list("abc"), feature_types=types, enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1, "max_cat_threshold": 200}, data, 5)
    model = bytes(booster.save_raw("ubj"))
    values[:150, 1:] += 100  # a third of them the model has never seen
    found = contributions(attribution_of(model, 5), values[:150], base_margin(bytes(booster.save_raw("json"))))
    assert found.tobytes() == expected(booster, values[:150], types).tobytes()


def test_a_node_that_no_way_leads_to_changes_nothing_even_where_it_splits_on_categories() -> None:
    model, _ = random_model(Shape(n_features=3, n_trees=2, depth=3, n_cuts=5, full=1, n_categorical=3), seed=1)
    document = json.loads(model)
    tree = document["learner"]["gradient_booster"]["model"]["trees"][1]
    lost = {"left_children": 0, "right_children": 0, "parents": 0, "split_indices": 2, "split_type": 1, "categories": 999}
    lost |= {"categories_nodes": len(tree["parents"]), "categories_segments": len(tree["categories"]), "categories_sizes": 1}
    for name in ("base_weights", "default_left", "loss_changes", "split_conditions", "sum_hessian"):
        tree[name].append(0)
    for name, value in lost.items():
        tree[name].append(value)
    tree["tree_param"]["num_nodes"] = str(len(tree["parents"]))
    with_it, without = attribution_of(json.dumps(document).encode(), 2), attribution_of(model, 2)
    for field in fields(Attribution):
        assert np.array_equal(getattr(with_it, field.name), getattr(without, field.name)), field.name


@pytest.mark.parametrize("n", [0, 1, ROWS - 1, ROWS, ROWS + 1, 64 * ROWS + 1])
def test_rows_of_any_number_are_whole(n: int) -> None:
    model, booster = random_model(Shape(n_features=2, n_trees=2, depth=2, n_cuts=5), seed=1)
    rows = rows_on_the_cuts(model, n, seed=2)
    found = contributions(attribution_of(model, 2), rows, base_margin(model))
    assert found.shape == (n, 3)
    assert found.tobytes() == (expected(booster, rows).tobytes() if n else b"")


@pytest.mark.parametrize("spoil", [lambda rows: rows.astype(np.float64), lambda rows: rows[0], lambda rows: rows[:, :1]])
def test_a_matrix_that_the_kernel_would_read_wrongly_is_refused(spoil: Callable[[Any], Any]) -> None:
    model, _ = random_model(Shape(n_features=2, n_trees=1, depth=2, n_cuts=5), seed=1)
    with pytest.raises(ValueError, match="float32"):
        contributions(attribution_of(model, 1), spoil(rows_on_the_cuts(model, 3, seed=2)), base_margin(model))


def test_tables_that_would_be_too_large_are_not_begun() -> None:
    model, _ = random_model(Shape(n_features=20, n_trees=1, depth=12, n_cuts=50, full=1), seed=1)
    facts = read_model_facts(model, where="model")
    with pytest.raises(NotCompilable):
        read_attribution(replace(facts, trees=list(facts.trees) * 50, n_trees=50, n_rounds=50), 50)


def test_a_tree_of_too_many_levels_is_left_to_xgboost() -> None:
    model, _ = random_model(Shape(n_features=4, n_trees=1, depth=WIDE + 1, n_cuts=5, lopsided=True), seed=1)
    with pytest.raises(NotCompilable):
        attribution_of(model, 1, max_bytes=1 << 40)


@pytest.mark.parametrize("cover", [0.0, float("nan"), float("inf"), -1.0])
def test_a_node_without_weight_is_left_to_xgboost(cover: float) -> None:
    model, _ = random_model(Shape(n_features=4, n_trees=3, depth=3, n_cuts=5, full=1), seed=1)
    document = json.loads(model)
    document["learner"]["gradient_booster"]["model"]["trees"][1]["sum_hessian"][4] = cover
    with pytest.raises(NotCompilable):
        attribution_of(json.dumps(document).encode(), 3)


@pytest.fixture
def explainer(checked: CheckedBundle, reference: XGBoostScorer) -> CompiledExplainer:
    return CompiledExplainer(reference, reference, checked.facts)


@pytest.fixture
def frame(reference: XGBoostScorer, make_rows: Callable[..., pa.Table]) -> Frame:
    return conform(make_rows(400, seed=7), reference.names)


def test_xgboost_explains_few_rows_and_the_tables_many(
    explainer: CompiledExplainer, reference: XGBoostScorer, frame: Frame
) -> None:
    few = frame.take(np.arange(3))
    before = explainer.contributions(few)
    assert explainer.explained_by == "xgboost"
    many = explainer.contributions(frame)
    assert explainer.explained_by == "compiled"
    after = explainer.contributions(few)
    assert explainer.explained_by == "compiled"
    assert explainer.n_fallbacks == 0
    assert many.tobytes() == reference.contributions(frame).tobytes()
    assert before.tobytes() == after.tobytes() == many[:3].tobytes()


def test_few_rows_often_are_many(explainer: CompiledExplainer, frame: Frame) -> None:
    few = frame.take(np.arange(3))
    routes = [explainer.explained_by for _ in range(100) if len(explainer.contributions(few))]
    assert routes == sorted(routes, reverse=True)
    assert set(routes) == {"xgboost", "compiled"}


def test_a_bundle_whose_tables_fail_the_certificate_is_explained_by_xgboost(
    explainer: CompiledExplainer,
    reference: XGBoostScorer,
    frame: Frame,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrong(*given: Any) -> Attribution:
        attribution = read_attribution(*given)
        return replace(attribution, entries=np.nextafter(attribution.entries, np.float32(np.inf)))

    monkeypatch.setattr(compiled_explainer, "read_attribution", wrong)
    with caplog.at_level(logging.ERROR):
        found = explainer.contributions(frame)
    assert "failed its certificate" in caplog.text
    assert explainer.explained_by == "xgboost"
    assert found.tobytes() == reference.contributions(frame).tobytes()
    assert not explainer.certify()


def test_a_sample_that_differs_gives_the_whole_frame_to_xgboost(
    explainer: CompiledExplainer, reference: XGBoostScorer, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explainer.certify()
    monkeypatch.setattr(
        compiled_explainer, "contributions", lambda *given: np.nextafter(contributions(*given), np.float32(np.inf))
    )
    assert explainer.contributions(frame).tobytes() == reference.contributions(frame).tobytes()
    assert explainer.explained_by == "xgboost"
    assert explainer.n_fallbacks == 1


@pytest.mark.parametrize("error", [OSError, RuntimeError, MemoryError, IndexError])
def test_where_no_code_or_table_can_be_made_xgboost_explains(
    explainer: CompiledExplainer, frame: Frame, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*given: Any) -> Any:
        raise error

    monkeypatch.setattr(compiled_explainer, "read_attribution", fail)
    assert len(explainer.contributions(frame)) == len(frame)
    assert explainer.explained_by == "xgboost"


class Trees(list[Any]):
    """Trees of a file that somebody can watch being let go."""


@pytest.mark.parametrize("fits", [True, False])
def test_the_trees_of_the_file_are_let_go_once_nothing_is_made_of_them_any_more(
    checked: CheckedBundle, reference: XGBoostScorer, monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    if not fits:
        monkeypatch.setattr(compiled_explainer, "read_nodes", lambda *given: read_nodes(*given, max_bytes=0))
    facts = replace(checked.facts, trees=Trees(checked.facts.trees))
    trees = weakref.ref(facts.trees)
    explainer = CompiledExplainer(reference, reference, facts)
    del facts
    gc.collect()
    held = [trees() is not None]  # tables too large are known before anybody asks
    assert explainer.certify() == fits
    gc.collect()
    held.append(trees() is not None)
    assert held == [fits, False]
