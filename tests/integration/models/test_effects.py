"""What a feature can do to a margin: proven from the trees, and true of every row that is tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from batchscore.errors import Refused
from batchscore.models.bundle import read_manifest
from batchscore.models.bundle_shown import difference
from batchscore.models.certificate import verify
from batchscore.models.effects import effects_of
from batchscore.models.model_file import read_model_facts
from tests.integration.models.random_models import Shape, random_model, rows_on_the_cuts
from tests.integration.models.test_bundle_files import rewrite_manifest
from tests.small_world import make_small_world

NAMES = ["up", "down", "free", "idle"]


def test_constraints_of_training_are_found_in_the_trees() -> None:
    rows = np.random.default_rng(1).normal(size=(2_000, 4)).astype(np.float32)
    rows[:, 3] = 1
    labels = (rows[:, 0] - rows[:, 1] + np.sin(3 * rows[:, 2]) > 0.3).astype(int)
    parameters = {"objective": "binary:logistic", "max_depth": 5, "monotone_constraints": "(1,-1,0,0)", "nthread": 1}
    booster = xgb.train(parameters, xgb.DMatrix(rows, labels, feature_names=NAMES), 30)
    facts = read_model_facts(bytes(booster.save_raw("ubj")), where="here")
    assert effects_of(facts, 30) == {"up": "raises", "down": "lowers", "idle": "none"}


@pytest.mark.parametrize("seed", range(8))
def test_an_effect_that_is_told_holds_to_the_bit_for_rows_on_the_cuts(seed: int) -> None:
    shape = Shape(n_features=6, n_trees=3, depth=3, n_cuts=4, full=0.5)
    payload, booster = random_model(shape, seed)
    facts = read_model_facts(payload, where="here")
    effects = effects_of(facts, facts.n_rounds)
    rows, others = rows_on_the_cuts(payload, 4_000, seed), rows_on_the_cuts(payload, 4_000, seed + 100)
    assert effects, "some feature of so small a forest has one effect"
    for place, name in enumerate(facts.names):
        low, high = rows.copy(), rows.copy()
        low[:, place], high[:, place] = (
            np.minimum(rows[:, place], others[:, place]),
            np.maximum(rows[:, place], others[:, place]),
        )
        known = ~np.isnan(low[:, place])
        before, after = (booster.inplace_predict(values[known], predict_type="margin") for values in (low, high))
        match effects.get(name):
            case "raises":
                assert (before <= after).all()
            case "lowers":
                assert (before >= after).all()
            case "none":
                assert (before == after).all()


def test_a_bundle_tells_effects_and_one_that_tells_others_does_not_verify(tmp_path: Path) -> None:
    make_small_world(tmp_path, n_accounts=5)
    bundle = read_manifest(tmp_path / "bundle")
    features = bundle.manifest.features
    assert any(feature.effect for feature in features)
    verify(tmp_path / "bundle")
    silent = rewrite_manifest(tmp_path / "bundle", features=[feature.model_dump() | {"effect": None} for feature in features])
    assert difference(bundle, read_manifest(Path(silent.path).parent)).same_trees, "an older bundle tells none, and scores alike"
    verify(tmp_path / "bundle")
    turned = {"raises": "lowers", "lowers": "raises", "none": "raises", None: "none"}
    rewrite_manifest(tmp_path / "bundle", features=[one.model_dump() | {"effect": turned[one.effect]} for one in features])
    with pytest.raises(Refused, match="what the trees do not do"):
        verify(tmp_path / "bundle")
