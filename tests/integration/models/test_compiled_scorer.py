"""The compiled scorer has XGBoost's bits on models and rows made to break it, and gives way where it has not."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.models.bundle import CheckedBundle, read_manifest
from batchscore.models.compiled_scorer import CompiledScorer, fastest, witnesses
from batchscore.models.contract import conform
from batchscore.models.forest import MAX_CUTS, Forest, NotCompilable, read_forest
from batchscore.models.kernel import has_wide_registers, score_margins
from batchscore.models.loading import load_scorer
from batchscore.models.model_file import read_model_facts
from batchscore.models.xgboost_scorer import XGBoostScorer
from tests.commands import succeeded
from tests.integration.models.random_models import Shape, base_margin, random_model, rows_on_the_cuts

FORMS = (False, True) if has_wide_registers() else (False,)  # of the kernel: both have the same bits, and the same tests


def forest_of(model: bytes, n_rounds: int) -> Forest:
    return read_forest(read_model_facts(model, where="model"), n_rounds)


shapes = st.builds(
    Shape,
    n_features=st.integers(1, 12),
    n_trees=st.integers(1, 20),
    depth=st.integers(0, 11),
    n_cuts=st.sampled_from([1, 5, 100, 250, 600, 3_000]),
    lopsided=st.booleans(),
    full=st.floats(0.3, 1),
)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32), n=st.integers(0, 1_500))
def test_random_models_give_xgboosts_margins_to_the_bit(shape: Shape, seed: int, n: int) -> None:
    model, booster = random_model(shape, seed)
    rows = rows_on_the_cuts(model, n, seed)
    for wide in FORMS:
        found = score_margins(forest_of(model, shape.n_trees), rows, base_margin(model), wide=wide)
        if n:
            expected = booster.inplace_predict(rows, predict_type="margin", missing=np.nan)
            assert found.tobytes() == expected.tobytes()
        assert found.shape == (n,)


@pytest.mark.parametrize("wide", FORMS)
@pytest.mark.parametrize("n", [1, 31, 32, 33, 255, 256, 257, 511, 513])
def test_blocks_of_any_length_are_whole(n: int, wide: bool) -> None:
    model, booster = random_model(Shape(n_features=3, n_trees=5, depth=4, n_cuts=50), seed=1)
    rows = rows_on_the_cuts(model, n, seed=2)
    found = score_margins(forest_of(model, 5), rows, base_margin(model), wide=wide)
    assert found.tobytes() == booster.inplace_predict(rows, predict_type="margin", missing=np.nan).tobytes()


@pytest.mark.parametrize("wide", FORMS)
@pytest.mark.parametrize("depth", range(1, 8))
def test_every_way_out_of_a_tree_has_its_leaf(depth: int, wide: bool) -> None:
    model, booster = random_model(Shape(n_features=8, n_trees=12, depth=depth, n_cuts=300, full=1), seed=depth)
    rows = rows_on_the_cuts(model, 3_000, seed=depth)
    found = score_margins(forest_of(model, 12), rows, base_margin(model), wide=wide)
    assert found.tobytes() == booster.inplace_predict(rows, predict_type="margin", missing=np.nan).tobytes()


def test_only_the_first_rounds_are_summed_when_asked() -> None:
    model, booster = random_model(Shape(n_features=4, n_trees=9, depth=3, n_cuts=40), seed=3)
    rows = rows_on_the_cuts(model, 100, seed=3)
    expected = booster.inplace_predict(rows, predict_type="margin", iteration_range=(0, 4), missing=np.nan)
    assert score_margins(forest_of(model, 4), rows, base_margin(model)).tobytes() == expected.tobytes()


def test_more_cuts_than_can_be_counted_are_left_to_xgboost() -> None:
    model, _ = random_model(Shape(n_features=1, n_trees=40, depth=11, n_cuts=3 * MAX_CUTS, full=1), seed=4)
    with pytest.raises(NotCompilable):
        forest_of(model, 40)


def test_a_leaf_that_is_not_finite_is_left_to_xgboost() -> None:
    model, _ = random_model(Shape(n_features=1, n_trees=1, depth=1, n_cuts=1), seed=5)
    with pytest.raises(NotCompilable):
        forest_of(model.replace(b'"split_conditions": [', b'"split_conditions": [NaN, NaN, NaN], "was": [', 1), 1)


def lying(reference: XGBoostScorer, checked: CheckedBundle) -> CompiledScorer:
    """A compiled scorer one of whose leaves is wrong by the last bit."""
    forest = read_forest(checked.facts, reference.manifest.iteration_range[1])
    wrong = np.nextafter(forest.exit_value, np.float32(np.inf))
    return CompiledScorer(reference, replace(forest, exit_value=wrong))


def test_a_model_that_passes_is_scored_by_the_compiled_scorer(checked: CheckedBundle, reference: XGBoostScorer) -> None:
    assert fastest(checked, reference).name == "compiled"


def test_the_certificate_finds_a_leaf_that_is_wrong_by_one_bit(checked: CheckedBundle, reference: XGBoostScorer) -> None:
    scorer = lying(reference, checked)
    forest = read_forest(checked.facts, reference.manifest.iteration_range[1])
    assert scorer.n_uncertified(witnesses(forest, reference.names)) > 0


def test_a_sample_that_differs_gives_the_whole_frame_to_xgboost(
    checked: CheckedBundle, reference: XGBoostScorer, make_rows: Callable[..., pa.Table]
) -> None:
    scorer, frame = lying(reference, checked), conform(make_rows(5_000, seed=7), reference.names)
    assert scorer.margin(frame).tobytes() == reference.margin(frame).tobytes()
    assert scorer.n_fallbacks == 1


def test_a_thread_hears_of_its_own_fallbacks_only(
    checked: CheckedBundle, reference: XGBoostScorer, make_rows: Callable[..., pa.Table]
) -> None:
    scorer, frame = lying(reference, checked), conform(make_rows(100, seed=7), reference.names)
    scorer.margin(frame)
    with ThreadPoolExecutor(1) as another:
        assert another.submit(lambda: scorer.n_fallbacks).result() == 0
        another.submit(scorer.margin, frame).result()
        another.submit(scorer.margin, frame).result()
        assert another.submit(lambda: scorer.n_fallbacks).result() == 2
    assert scorer.n_fallbacks == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda matrix: matrix.astype(np.float64),
        np.asfortranarray,
        lambda matrix: matrix[0],
        lambda matrix: np.ascontiguousarray(matrix[:, :1]),
        lambda matrix: matrix[::2],
        lambda matrix: matrix.astype(">f4"),
    ],
)
def test_a_matrix_that_the_kernel_would_read_wrongly_is_refused(
    checked: CheckedBundle, reference: XGBoostScorer, spoil: Callable[[Any], Any]
) -> None:
    forest = read_forest(checked.facts, reference.manifest.iteration_range[1])
    matrix = witnesses(forest, reference.names).matrix
    with pytest.raises(ValueError, match="C-contiguous"):
        score_margins(forest, spoil(matrix), reference.base_margin())


def test_a_failed_certificate_is_logged_and_xgboost_scores(
    checked: CheckedBundle, reference: XGBoostScorer, caplog: pytest.LogCaptureFixture, trainer: Callable[..., xgb.Booster]
) -> None:
    another = bytes(trainer(6, seed=9, max_depth=2).save_raw("ubj"))
    other = replace(checked, facts=read_model_facts(another, where="another model"))
    with caplog.at_level(logging.ERROR):
        assert fastest(other, reference) is reference
    assert "failed its certificate" in caplog.text


@pytest.mark.parametrize("feature", [-5, 10_000, 2**40])
def test_a_model_that_is_odd_where_no_way_leads_is_scored_by_xgboost(
    checked: CheckedBundle, reference: XGBoostScorer, feature: int
) -> None:
    first, *others = checked.facts.trees
    of_node = {"left_children": 1, "right_children": 2, "split_indices": feature, "split_conditions": 0.5, "default_left": 0}
    odd = {name: [*first[name], value] for name, value in of_node.items()}
    facts = replace(checked.facts, trees=[{**first, **odd}, *others])
    assert fastest(replace(checked, facts=facts), reference) is reference


def test_the_reference_can_be_asked_for(bundle: Path) -> None:
    manifest = read_manifest(bundle).reference
    assert load_scorer(manifest, route="xgboost").name == "xgboost"
    assert load_scorer(manifest).name == "compiled"


def test_without_its_library_xgboost_scores(bundle: Path) -> None:
    program = (
        "import sys; sys.modules['llvmlite'] = None\n"
        "from pathlib import Path\n"
        "from batchscore.models.bundle import read_manifest\n"
        "from batchscore.models.loading import load_scorer\n"
        "print(load_scorer(read_manifest(Path(sys.argv[1])).reference).name)"
    )
    assert succeeded(sys.executable, "-c", program, bundle).strip() == "xgboost"
