"""Categorical features: by value and never by somebody's code, exact, and what was never seen is what was declared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb

from batchscore.errors import Refused
from batchscore.models.bundle import ReasonTemplate, read_checked, read_manifest
from batchscore.models.certificate import verify
from batchscore.models.contract import Matrix, conform
from batchscore.models.forest import NotCompilable, read_forest
from batchscore.models.loading import load_scorer
from batchscore.models.model_file import read_model_facts
from batchscore.models.pack import About, pack_bundle
from batchscore.models.reasons import explain
from batchscore.models.scorer import Scorer
from batchscore.plan import Reference

NAMES = ("country", "plan", "mails")
COUNTRIES = ["DE", "FR", "AT", "US", "a long name, with commas"]
REASONS = {name: ReasonTemplate(code=name, sentence=f"{name} is {{value}}") for name in NAMES}


def rows(n: int, seed: int = 0) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    countries = chance.choice(np.array([*COUNTRIES, None], object), n, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    return pd.DataFrame(
        {
            "country": pd.Categorical(countries, categories=COUNTRIES),
            "plan": pd.Categorical(chance.choice([7, 12, 70_000], n), categories=[7, 12, 70_000]),
            "mails": chance.gamma(2, 10, n).astype(np.float32),
        }
    )


def train(**parameters: Any) -> xgb.Booster:
    data = rows(600)
    labels = ((data.country == "FR") | ((data.plan == 12) & (data.mails > 20)) | (data.country == "US")).astype(int)
    return xgb.train(
        {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, **parameters},
        xgb.DMatrix(data, labels, enable_categorical=True),
        8,
    )


def table(data: pd.DataFrame, **columns: pa.Array) -> pa.Table:
    """As the feature set would make it: text and integers, no codes."""
    made = {
        "country": pa.array(data.country.astype(object).where(data.country.notna(), None), pa.string()),
        "plan": pa.array(data.plan.astype("int64"), pa.int64()),
        "mails": pa.array(data.mails),
    }
    return pa.table(made | columns)


def pack(booster: xgb.Booster, folder: Path, **about: Any) -> Reference:
    return pack_bundle(
        booster,
        folder,
        features=NAMES,
        feature_set_digest="0" * 64,
        golden=table(rows(40, seed=1)),
        about=About.model_validate({"name": "m", "reasons": REASONS, **about}),
    )


@pytest.fixture(scope="module", params=[1, 100], ids=["partitions", "one-hot"])
def booster(request: pytest.FixtureRequest) -> xgb.Booster:
    return train(max_cat_to_onehot=request.param)


@pytest.fixture
def scorer(booster: xgb.Booster, tmp_path: Path) -> Scorer:
    return load_scorer(pack(booster, tmp_path / "b"))


def margins(scorer: Scorer, given: pa.Table) -> Any:
    return scorer.margin(conform(given, scorer.names, scorer.manifest.category_sets))


def refused(call: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_margins_are_those_of_xgboost_on_the_data_frame(booster: xgb.Booster, scorer: Scorer, kind: pa.DataType) -> None:
    data = rows(2_000, seed=5)
    expected = booster.predict(xgb.DMatrix(data, enable_categorical=True), output_margin=True)
    given = table(data)
    given = given.set_column(0, "country", given["country"].cast(kind)).select(["mails", "plan", "country"])
    assert margins(scorer, given).tobytes() == expected.tobytes()
    assert scorer.manifest.category_sets["plan"].known == (7, 12, 70_000)


def test_the_bundle_verifies_and_is_left_to_xgboost(scorer: Scorer, tmp_path: Path) -> None:
    checked = read_checked(read_manifest(tmp_path / "b").reference)
    assert scorer.name == "xgboost"
    assert verify(tmp_path / "b").scorer == "xgboost"
    with pytest.raises(NotCompilable):
        read_forest(checked.facts, 8)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64()])
def test_integers_are_categories_by_value_whatever_their_width(scorer: Scorer, kind: pa.DataType) -> None:
    data = rows(300, seed=6)
    plans = [7, 12, 7] * 100
    narrow = table(data, plan=pa.array(plans, kind))
    assert margins(scorer, narrow).tobytes() == margins(scorer, table(data, plan=pa.array(plans, pa.int64()))).tobytes()


def test_an_unseen_category_is_missing_unless_declared(scorer: Scorer) -> None:
    data = rows(3, seed=7)
    unseen = table(data, country=pa.array(["XX", "fr", None]), plan=pa.array([2**64 - 1, 2**63, 8], pa.uint64()))
    missing = table(data, country=pa.nulls(3, pa.string()), plan=pa.nulls(3, pa.int64()))
    assert margins(scorer, unseen).tobytes() == margins(scorer, missing).tobytes()


def test_an_unseen_category_that_is_to_reject_its_row_harms_no_other(booster: xgb.Booster, tmp_path: Path) -> None:
    strict = load_scorer(pack(booster, tmp_path / "strict", categories={"country": {"unseen": "reject"}}))
    data = rows(4, seed=8)
    good = table(data, country=pa.array(["DE", "FR", None, "US"]))
    bad = table(data, country=pa.array(["DE", "XX", None, "US"]))
    frame = conform(bad, NAMES, strict.manifest.category_sets)
    found = strict.margin(frame)
    assert np.isnan(found).tolist() == frame.unscorable.tolist() == [False, True, False, False]
    assert np.isnan(strict.contributions(frame)).all(axis=1).tolist() == [False, True, False, False]
    assert found[[0, 2, 3]].tobytes() == margins(strict, good)[[0, 2, 3]].tobytes()


@pytest.mark.parametrize(
    "column", [pa.array([0.0, 1.0]), pa.array([0, 1]), pa.array([True, False]), pa.array([b"DE", b"FR"], pa.binary())]
)
def test_codes_in_place_of_text_never_score(scorer: Scorer, column: pa.Array) -> None:
    assert refused(lambda: margins(scorer, table(rows(2), country=column))).reason == "column_type"


def test_text_or_floats_in_place_of_integer_categories_never_score(scorer: Scorer) -> None:
    for given in (table(rows(2), plan=pa.array(["7", "12"])), table(rows(2), plan=pa.array([7.0, 12.0]))):
        with pytest.raises(Refused, match="column_type"):
            margins(scorer, given)


def codes(data: pd.DataFrame) -> Matrix:
    columns = [data[name].cat.codes.to_numpy(np.float32) for name in ("country", "plan")]
    made: Matrix = np.column_stack([*columns, data.mails.to_numpy(np.float32)])
    made[made == -1] = np.nan
    return made


def on_codes() -> xgb.Booster:
    """Trained on codes, as with NumPy: the model file keeps no categories."""
    data = rows(600)
    labels = (data.country == "FR").to_numpy()
    values = codes(data)
    matrix = xgb.DMatrix(values, labels, feature_names=list(NAMES), feature_types=["c", "c", "q"], enable_categorical=True)
    return xgb.train({"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, matrix, 8)


def test_a_model_trained_on_codes_needs_its_categories_declared(tmp_path: Path) -> None:
    error = refused(lambda: pack(on_codes(), tmp_path / "b"))
    assert error.reason == "feature_contract"
    assert [problem.where for problem in error.problems] == ["country", "plan"]
    declared = {"country": {"values": COUNTRIES}, "plan": {"values": [7, 12, 70_000]}}
    scorer = load_scorer(pack(on_codes(), tmp_path / "b", categories=declared))
    data = rows(500, seed=9)
    values = codes(data)
    expected = on_codes().inplace_predict(values, predict_type="margin")
    assert margins(scorer, table(data)).tobytes() == expected.tobytes()


def test_text_beyond_ascii_is_not_kept_whole_by_xgboost_and_must_be_declared(tmp_path: Path) -> None:
    names = ["Zürich", "Basel"]
    data = pd.DataFrame({"city": pd.Categorical(names * 50, categories=names)})
    booster = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(data, [1, 0] * 50, enable_categorical=True), 2)
    asked: dict[str, Any] = {
        "features": ["city"],
        "feature_set_digest": "0" * 64,
        "golden": pa.table({"city": pa.array(names)}),
    }
    about = {"name": "m", "reasons": {"city": {"code": "city", "sentence": "{value}"}}}
    undeclared = About.model_validate(about)
    assert refused(lambda: pack_bundle(booster, tmp_path / "b", **asked, about=undeclared)).reason == "feature_contract"
    declared = About.model_validate(about | {"categories": {"city": {"values": names}}})
    scorer = load_scorer(pack_bundle(booster, tmp_path / "b", **asked, about=declared))
    found = margins(scorer, pa.table({"city": pa.array(["Zürich", "Basel"])}))
    assert found[0] > 0 > found[1]


@pytest.mark.parametrize(
    "categories", [{"country": {"values": ["FR", "DE", "AT", "US", "a long name, with commas"]}}, {"mails": {"values": [1]}}]
)
def test_categories_that_contradict_the_model_are_refused(
    booster: xgb.Booster, tmp_path: Path, categories: dict[str, Any]
) -> None:
    assert refused(lambda: pack(booster, tmp_path / "x", categories=categories)).reason == "feature_contract"


def test_codes_have_no_range_to_be_limited_to(booster: xgb.Booster, tmp_path: Path) -> None:
    assert refused(lambda: pack(booster, tmp_path / "x", limits={"country": {"low": 0}})).reason == "bundle_invalid"
    pack(booster, tmp_path / "b", limits={"country": {"max_missing": 0.5}})


def test_a_manifest_with_other_categories_than_its_model_is_refused(booster: xgb.Booster, tmp_path: Path) -> None:
    pack(booster, tmp_path / "b")
    path = tmp_path / "b" / "manifest.json"
    path.write_text(path.read_text().replace('"DE","FR"', '"FR","DE"'))
    assert refused(lambda: read_manifest(tmp_path / "b")).reason == "feature_contract"


def test_a_reason_says_the_category_and_not_its_code(scorer: Scorer) -> None:
    frame = conform(table(rows(30, seed=2)), NAMES, scorer.manifest.category_sets)
    sentences = {reason.sentence for of_row in explain(scorer, frame, scorer.margin(frame)) for reason in of_row}
    assert {"country is FR", "country is unknown", "plan is 70000"} <= sentences
    assert not sentences & {"country is 0", "country is 1", "plan is 0", "plan is 1"}


def damage(booster: xgb.Booster, change: Callable[[Any], None]) -> bytes:
    document = json.loads(bytes(booster.save_raw("json")))
    change(document["learner"])
    return json.dumps(document).encode()


def beyond(learner: Any) -> None:
    learner["gradient_booster"]["model"]["trees"][0]["categories_segments"][0] = 1 << 40


def without_stretch(learner: Any) -> None:
    for name in ("categories_nodes", "categories_segments", "categories_sizes"):
        learner["gradient_booster"]["model"]["trees"][0][name].pop()


def far_code(learner: Any) -> None:
    learner["gradient_booster"]["model"]["trees"][0]["categories"][0] = 1 << 40


def of_numbers(learner: Any) -> None:
    learner["feature_types"] = ["float", "float", "float"]


def far_text(learner: Any) -> None:
    learner["gradient_booster"]["model"]["cats"]["enc"][0]["offsets"][-1] = 1 << 30


@pytest.mark.parametrize("change", [beyond, without_stretch, far_code, of_numbers, far_text])
def test_damaged_categories_are_refused_before_xgboost_sees_them(booster: xgb.Booster, change: Callable[[Any], None]) -> None:
    assert refused(lambda: read_model_facts(damage(booster, change), where="model")).reason == "model_format"
