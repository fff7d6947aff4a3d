"""The trees of a model file: whole, and the same digest however they were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import xgboost as xgb

from batchscore.errors import Refused
from batchscore.models.model_file import read_model_facts


def digest_of(payload: bytes) -> str:
    return read_model_facts(payload, where="model").forest_digest


def changed(booster: xgb.Booster, change: Callable[[Any], None]) -> bytes:
    document = json.loads(bytes(booster.save_raw("json")))
    change(document["learner"]["gradient_booster"]["model"])
    return json.dumps(document).encode()


def test_one_model_in_both_forms_has_one_digest(booster: xgb.Booster) -> None:
    assert digest_of(bytes(booster.save_raw("ubj"))) == digest_of(bytes(booster.save_raw("json")))


@pytest.mark.parametrize(
    ("name", "value"),
    [("split_conditions", 0.125), ("sum_hessian", 0.125), ("default_left", None)],
)
def test_a_change_that_changes_a_score_or_a_reason_changes_the_digest(booster: xgb.Booster, name: str, value: Any) -> None:
    def change(model: Any) -> None:
        tree = model["trees"][1]
        tree[name][0] = 1 - tree[name][0] if value is None else value

    assert digest_of(changed(booster, change)) != digest_of(bytes(booster.save_raw("ubj")))


def test_what_no_score_depends_on_is_not_in_the_digest(booster: xgb.Booster) -> None:
    def change(model: Any) -> None:
        model["trees"][1]["loss_changes"][0] = 0.125

    assert digest_of(changed(booster, change)) == digest_of(bytes(booster.save_raw("ubj")))


def set_at(name: str, node: int, value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model["trees"][0][name][node] = value

    return change


def cut_short(name: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model["trees"][0][name].pop()

    return change


def rounds_of_two(model: Any) -> None:
    model["iteration_indptr"] = [0, 2, 4, 6]


def of_another_class(model: Any) -> None:
    model["tree_info"][2] = 1


@pytest.mark.parametrize(
    "change",
    [
        set_at("left_children", 0, 0),
        set_at("left_children", 0, 2),
        set_at("left_children", 0, 10_000),
        set_at("left_children", 0, -7),
        set_at("left_children", 0, -1),
        set_at("right_children", 1, 0),
        set_at("parents", 1, 2),
        set_at("parents", 1, 10_000),
        set_at("parents", 1, -7),
        set_at("parents", 0, 1),
        set_at("default_left", 0, 2),
        set_at("split_type", 0, 1),
        set_at("split_indices", 0, 4),
        set_at("split_indices", 0, -1),
        cut_short("split_conditions"),
        cut_short("sum_hessian"),
        cut_short("base_weights"),
        cut_short("parents"),
        rounds_of_two,
        of_another_class,
    ],
)
def test_what_is_no_tree_is_refused_before_xgboost_sees_it(booster: xgb.Booster, change: Callable[[Any], None]) -> None:
    with pytest.raises(Refused, match="damaged") as caught:
        read_model_facts(changed(booster, change), where="model")
    assert caught.value.reason == "model_format"


def test_trees_with_pruned_nodes_are_trees(trainer: Callable[..., xgb.Booster]) -> None:
    pruned = trainer(tree_method="exact", gamma=5.0, max_depth=6)
    document = json.loads(bytes(pruned.save_raw("json")))
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    assert any(int(tree["tree_param"]["num_deleted"]) for tree in trees), "or this tests nothing"
    assert digest_of(bytes(pruned.save_raw("ubj"))) == digest_of(bytes(pruned.save_raw("json")))
