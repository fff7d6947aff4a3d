"""Model files that must not be scored are refused by name, unopened, with how to mend it."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.errors import Refused
from batchscore.models.model_document import MAX_DEPTH, NotReadable, read_json, read_ubjson
from batchscore.models.model_file import read_model_facts, settled_range

Train = Callable[..., xgb.Booster]


def refusal(payload: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        read_model_facts(payload, where="model.ubj")
    assert caught.value.remedy
    return caught.value


def changed(booster: xgb.Booster, change: Callable[[Any], None]) -> bytes:
    document = json.loads(bytes(booster.save_raw("json")))
    change(document)
    return json.dumps(document).encode()


def test_ubjson_and_json_say_the_same(booster: xgb.Booster) -> None:
    as_ubj, as_json = (read_model_facts(bytes(booster.save_raw(form)), where="model") for form in ("ubj", "json"))
    assert (as_ubj.suffix, as_json.suffix) == ("ubj", "json")
    assert (as_ubj.names, as_ubj.n_trees, as_ubj.n_rounds, as_ubj.base_score, as_ubj.version_text) == (
        as_json.names, as_json.n_trees, as_json.n_rounds, as_json.base_score, as_json.version_text,
    )  # fmt: skip
    assert as_ubj.n_rounds == booster.num_boosted_rounds()


OLD_BINARY = (
    struct.pack("<fIiI", 0.5, 4, 0, 0)
    + bytes(120)
    + struct.pack("<Q", 15)
    + b"binary:logistic"
    + struct.pack("<Q", 6)
    + b"gbtree"
)


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"", "empty"),
        (pickle.dumps({"a": 1}), "pickle"),
        (pickle.dumps({"a": 1}, protocol=2), "pickle"),
        (pickle.dumps({"a": 1}, protocol=0), "pickle"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x13joblib.numpy_pickle", "joblib"),
        (gzip.compress(b"x", mtime=0), "compressed"),
        (OLD_BINARY, "old binary"),
        (b"binf" + OLD_BINARY, "old binary"),
        (b"booster[0]:\n0:[mails_7d<3] yes=1,no=2,missing=2\n", "dump_model"),
        (b"0:[f0<3] yes=1,no=2,missing=2\n", "dump_model"),
        (b'[\n  { "nodeid": 0, "depth": 0, "split": "f0" }]', "dump_model"),
        (b"tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\n", "LightGBM"),
        (b'{"name": "tree", "version": "v4", "feature_names": [], "tree_info": []}', "LightGBM"),
        (b'{"a": 1}', "no XGBoost model"),
        (b"PAR1", "neither"),
        (b"\x08\x03 an onnx file", "neither"),
    ],
)
def test_what_is_no_xgboost_model_is_named(payload: bytes, named: str) -> None:
    error = refusal(payload)
    assert error.reason == "model_format"
    assert named in str(error)


def test_a_pickle_is_never_opened() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("raise SystemExit('opened')",)

    assert "pickle" in str(refusal(pickle.dumps(Trap())))


def test_dumps_snapshots_and_configurations_of_a_real_booster_are_named(booster: xgb.Booster) -> None:
    assert "dump_model" in str(refusal("".join(f"booster[{n}]:\n{text}" for n, text in enumerate(booster.get_dump())).encode()))
    assert "dump_model" in str(refusal(("[\n" + ",\n".join(booster.get_dump(dump_format="json")) + "\n]").encode()))
    assert "save_config" in str(refusal(booster.save_config().encode()))
    assert "snapshot" in str(refusal(bytes(booster.__getstate__()["handle"])))
    assert "pickle" in str(refusal(pickle.dumps(booster)))


@pytest.mark.parametrize("newer", [[3, 99, 0], [4, 0, 0], [99, 0, 0]])
def test_a_model_of_a_newer_xgboost_is_refused_whatever_else_it_holds(booster: xgb.Booster, newer: list[int]) -> None:
    error = refusal(changed(booster, lambda document: document.update(version=newer, learner={"other": "shape"})))
    assert error.reason == "model_version"
    assert ".".join(map(str, newer)) in str(error)


def test_an_older_model_is_let_pass(booster: xgb.Booster) -> None:
    def age(document: Any) -> None:
        document["version"] = [2, 1, 4]
        document["learner"]["learner_model_param"]["base_score"] = "5E-1"

    assert read_model_facts(changed(booster, age), where="m").base_score == "5E-1"


@pytest.mark.parametrize(
    "objective",
    ["binary:logitraw", "binary:hinge", "reg:squarederror", "reg:logistic", "count:poisson", "rank:pairwise", "survival:cox"],
)
def test_objectives_without_a_probability_are_refused_by_name(trainer: Train, objective: str) -> None:
    error = refusal(bytes(trainer(1, objective=objective).save_raw("ubj")))
    assert error.reason == "model_objective"
    assert objective in str(error)


def test_a_custom_objective_is_refused(trainer: Train) -> None:
    data = xgb.DMatrix(np.zeros((4, 1)), np.array([0, 1, 0, 1]), feature_names=["a"])
    booster = xgb.train({"nthread": 1}, data, 1, obj=lambda margins, _: (margins, np.ones_like(margins)))
    assert "custom objective" in str(refusal(bytes(booster.save_raw("ubj"))))


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_a_model_of_several_outputs_is_refused_though_each_is_a_probability(strategy: str) -> None:
    rng = np.random.default_rng(1)
    data = xgb.DMatrix(rng.random((40, 2)), rng.integers(0, 2, (40, 3)), feature_names=["a", "b"])
    asked = {"objective": "binary:logistic", "multi_strategy": strategy, "tree_method": "hist", "nthread": 1}
    error = refusal(bytes(xgb.train(asked, data, 2).save_raw("ubj")))
    assert error.reason == "model_objective"
    assert "several outputs" in str(error)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"booster": "dart"}, "dart"),
        ({"booster": "gblinear", "verbosity": 0}, "gblinear"),
        ({"objective": "multi:softprob", "num_class": 3}, "multi"),
    ],
)
def test_boosters_that_are_not_scored_exactly_are_refused_by_name(trainer: Train, parameters: dict[str, Any], named: str) -> None:
    error = refusal(bytes(trainer(2, **parameters).save_raw("ubj")))
    assert error.reason == "model_objective"
    assert named in str(error)


def test_a_model_without_feature_names_is_refused(trainer: Train) -> None:
    assert refusal(bytes(trainer(1, names=None).save_raw("ubj"))).reason == "feature_contract"


@pytest.mark.parametrize("name", ["mails_7d", "a\nb", "\ud800"])
def test_feature_names_that_are_doubled_or_not_printable_are_refused(booster: xgb.Booster, name: str) -> None:
    names = ["mails_7d", name, "age_days", "bounce_ratio"]
    assert refusal(changed(booster, lambda d: d["learner"].update(feature_names=names))).reason == "feature_contract"


def test_early_stopping_needs_an_iteration_range(booster: xgb.Booster) -> None:
    payload = changed(booster, lambda document: document["learner"]["attributes"].update(best_iteration="3", best_score="0.1"))
    facts = read_model_facts(payload, where="m")
    with pytest.raises(Refused, match=r"iteration_range=\(0, 4\)"):
        settled_range(facts, None, where="m")
    assert settled_range(facts, (0, 4), where="m") == (0, 4)
    at_the_end = changed(booster, lambda document: document["learner"]["attributes"].update(best_iteration="5"))
    assert settled_range(read_model_facts(at_the_end, where="m"), None, where="m") == (0, 6)


@pytest.mark.parametrize("asked", [(0, 0), (0, 7), (1, 6), (-1, 3), (3, 2)])
def test_an_iteration_range_outside_the_model_is_refused(booster: xgb.Booster, asked: tuple[int, int]) -> None:
    facts = read_model_facts(bytes(booster.save_raw("ubj")), where="m")
    with pytest.raises(Refused, match="bundle_invalid"):
        settled_range(facts, asked, where="m")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["learner"]["gradient_booster"]["model"]["gbtree_model_param"].update(num_trees="7"),
        lambda d: d["learner"]["gradient_booster"]["model"].update(trees=[]),
        lambda d: d["learner"].pop("learner_model_param"),
        lambda d: d["learner"]["learner_model_param"].update(base_score="[0.1,0.2]"),
        lambda d: d["learner"]["learner_model_param"].update(base_score="1E0"),
        lambda d: d.update(version="3.2.0"),
        lambda d: d.update(version=[3, 2]),
        lambda d: d.update(version=[float("inf"), 0, 0]),
        lambda d: d["learner"].update(learner_model_param=[]),
        lambda d: d["learner"]["gradient_booster"]["model"].update(trees=[1] * 6),
        lambda d: d["learner"]["gradient_booster"]["model"]["gbtree_model_param"].update(num_parallel_tree="-1"),
        lambda d: d.pop("version"),
        lambda d: d.update(learner=[]),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(booster: xgb.Booster, change: Callable[[Any], None]) -> None:
    assert refusal(changed(booster, change)).reason == "model_format"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_ubjson_file_never_ends_in_another_error(booster: xgb.Booster, data: st.DataObject) -> None:
    damaged = bytearray(booster.save_raw("ubj"))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for payload in (bytes(damaged), bytes(damaged[:cut])):
        with suppress(Refused):
            read_model_facts(payload, where="m")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[#L\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"[#L\xff\xff\xff\xff\xff\xff\xff\xff",
        b"[$d#L\x00\x00\x00\x00\x7f\xff\xff\xff",
        b"[$Z#L\x00\x00\x00\x00\x00\x00\x00\x01",
        b"SL\x00\x00\x00\x00\x00\x00\x00\xffabc",
        b"Si\xff",
        b"[" * (MAX_DEPTH + 2),
        b"{i\x01aTi\x01aT}",
        b"TT",
        b"?",
        b"Si\x01\xff",
    ],
)
def test_ubjson_whose_sizes_lie_is_not_read(payload: bytes) -> None:
    with pytest.raises(NotReadable):
        read_ubjson(payload)


@pytest.mark.parametrize("payload", [b'{"a": 1, "a": 2}', b"[" * 100_000, b"{", b"\xff", b"{} {}", b"9" * 5_000])
def test_json_that_is_not_one_plain_document_is_not_read(payload: bytes) -> None:
    with pytest.raises(NotReadable):
        read_json(payload)
