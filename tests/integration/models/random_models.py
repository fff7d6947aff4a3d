"""Models nobody trained: random trees with hostile cuts, in XGBoost's own JSON, and rows that lie on those cuts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import xgboost as xgb

from batchscore.models.contract import Matrix

EXTREMES = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 1.0, np.nextafter(np.float32(1), 0), 16_777_217],
    np.float32,
)


N_CODES = 70  # more than one word of XGBoost's bits


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What to draw. ``lopsided`` trees grow from one leaf at a time; others level by level, each node with chance ``full``.

    The last ``n_categorical`` features are categories, up to `N_CODES` of them. ``base_score`` is drawn where none is given.
    """

    n_features: int
    n_trees: int
    depth: int
    n_cuts: int
    lopsided: bool = False
    full: float = 0.9
    n_categorical: int = 0
    base_score: float | None = None

    @property
    def types(self) -> list[str]:
        """Of features, as a DMatrix wants them."""
        return ["q"] * (self.n_features - self.n_categorical) + ["c"] * self.n_categorical


def random_model(shape: Shape, seed: int) -> tuple[bytes, xgb.Booster]:
    """The model's file, and the booster XGBoost makes of it."""
    chance = np.random.default_rng(seed)
    document = json.loads(_skeleton(shape.n_features))
    cuts = np.concatenate([chance.normal(size=shape.n_cuts).astype(np.float32), EXTREMES])
    booster = document["learner"]["gradient_booster"]["model"]
    booster["trees"] = [_tree(number, shape, cuts, chance) for number in range(shape.n_trees)]
    booster["tree_info"] = [0] * shape.n_trees
    booster["iteration_indptr"] = list(range(shape.n_trees + 1))
    booster["gbtree_model_param"]["num_trees"] = str(shape.n_trees)
    document["learner"]["learner_model_param"]["base_score"] = f"[{shape.base_score or chance.uniform(0.01, 0.99):E}]"
    document["learner"]["feature_types"] = shape.types if shape.n_categorical else []
    payload = json.dumps(document).encode()
    return payload, xgb.Booster({"nthread": 1}, model_file=bytearray(payload))


def rows_on_the_cuts(model: bytes, n: int, seed: int) -> Matrix:
    """Rows whose values are the model's cuts, their neighbours, extremes, anything, or missing."""
    chance = np.random.default_rng(seed)
    document = json.loads(model)
    n_features = int(document["learner"]["learner_model_param"]["num_feature"])
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    cuts = np.unique(np.concatenate([np.array(tree["split_conditions"], np.float32) for tree in trees]))
    at = chance.choice(cuts, (n, n_features))
    with np.errstate(over="ignore"):  # beyond the largest float: missing, below
        below, above = np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))
    anything = chance.normal(size=(n, n_features)).astype(np.float32)
    missing = np.full((n, n_features), np.nan, np.float32)
    choices = np.stack([at, below, above, anything, missing, chance.choice(EXTREMES, (n, n_features))])
    found: Matrix = np.take_along_axis(choices, chance.integers(0, len(choices), (1, n, n_features)), axis=0)[0]
    found[np.isinf(found)] = np.nan
    return np.ascontiguousarray(found)


@cache
def _skeleton(n_features: int) -> str:
    values = np.arange(4 * n_features, dtype=np.float32).reshape(4, n_features)
    names = [f"f{number}" for number in range(n_features)]
    booster = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(values, [0, 1, 0, 1], feature_names=names), 1)
    return bytes(booster.save_raw("json")).decode()


def _tree(number: int, shape: Shape, cuts: Any, chance: np.random.Generator) -> dict[str, Any]:
    left, right, parents = _lopsided(shape, chance) if shape.lopsided else _levels(shape, chance)
    n = len(left)
    inner = np.array(left) >= 0
    values = chance.normal(scale=10.0 ** chance.integers(-3, 3), size=n).astype(np.float32)
    conditions = np.where(inner, chance.choice(cuts, n), values)
    asked = chance.integers(0, shape.n_features, n)
    default_left = chance.integers(0, 2, n)
    by_code = inner & (asked >= shape.n_features - shape.n_categorical)
    codes = [np.unique(chance.integers(0, N_CODES, chance.integers(1, 9))).tolist() for _ in range(int(by_code.sum()))]
    sizes = [len(held) for held in codes]
    return {
        "base_weights": values.tolist(), "categories": [*chain.from_iterable(codes)],
        "categories_nodes": np.flatnonzero(by_code).tolist(),
        "categories_segments": (np.cumsum(sizes, dtype=int) - sizes).tolist(),
        "categories_sizes": sizes, "default_left": default_left.tolist(), "id": number, "left_children": left,
        "loss_changes": [0.0] * n, "parents": parents, "right_children": right, "split_conditions": conditions.tolist(),
        "split_indices": asked.tolist(), "split_type": by_code.astype(int).tolist(), "sum_hessian": _covers(left, right, chance),
        "tree_param": {"num_deleted": "0", "num_feature": str(shape.n_features), "num_nodes": str(n), "size_leaf_vector": "1"},
    }  # fmt: skip


def _covers(left: list[int], right: list[int], chance: np.random.Generator) -> list[float]:
    """The rows of training that came by each node, in weight; children come after their parent."""
    covers = np.full(len(left), 10.0 ** chance.uniform(-2, 5), np.float32)
    for node in np.flatnonzero(np.array(left) >= 0).tolist():
        share = np.float32(chance.beta(0.5, 0.5) * 0.998 + 0.001)
        covers[left[node]], covers[right[node]] = covers[node] * share, covers[node] * (1 - share)
    found: list[float] = covers.tolist()
    return found


def _levels(shape: Shape, chance: np.random.Generator) -> tuple[list[int], list[int], list[int]]:
    grown = _Grown()
    level = [0]
    for _ in range(shape.depth):
        level = [child for node in level if chance.random() < shape.full for child in grown.split(node)]
    return grown.left, grown.right, grown.parents


def _lopsided(shape: Shape, chance: np.random.Generator) -> tuple[list[int], list[int], list[int]]:
    grown = _Grown()
    node = 0
    for _ in range(shape.depth):
        node = grown.split(node)[chance.integers(0, 2)]
    return grown.left, grown.right, grown.parents


class _Grown:
    """A tree as it grows; node 0 is the root."""

    def __init__(self) -> None:
        self.left, self.right, self.parents = [-1], [-1], [2_147_483_647]

    def split(self, node: int) -> tuple[int, int]:
        self.left[node], self.right[node] = len(self.left), len(self.left) + 1
        for _ in range(2):
            self.left.append(-1)
            self.right.append(-1)
            self.parents.append(node)
        return self.left[node], self.right[node]


def base_margin(model: bytes) -> np.float32:
    """What XGBoost starts from, asked of a booster without trees."""
    score = json.loads(json.loads(model)["learner"]["learner_model_param"]["base_score"])[0]
    one = np.zeros((1, 1), np.float32)
    empty = xgb.train({"objective": "binary:logistic", "base_score": score}, xgb.DMatrix(one, [0.0]), num_boost_round=0)
    margin: np.float32 = empty.inplace_predict(one, predict_type="margin").reshape(-1)[0]
    return margin
