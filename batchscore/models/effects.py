"""Which way a feature can move a margin at all: proven from the trees, for every row there can be.

Where each split on a feature has no leaf on its left above one on its right, a larger value never ends in a smaller leaf. Sums of
float32, rounded in one order, keep that: so such a feature, when it is not missing, only ever raises the margin, to the bit.
XGBoost's ``monotone_constraints`` grow trees of that kind, and leave no word of it in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from batchscore.models.bundle import Effect
from batchscore.models.model_file import ModelFacts


def effects_of(facts: ModelFacts, n_rounds: int) -> dict[str, Effect]:
    """What a larger value of a feature can do to the margin of the first ``n_rounds``; a feature that does both is left out.

    ``none``: no tree asks for it. Categorical features have no larger values; of them only ``none`` is told.
    """
    n_trees = n_rounds * (facts.n_trees // facts.n_rounds)
    raises, lowers, used = (np.full(len(facts.names), held, np.bool_) for held in (True, True, False))
    for tree in facts.trees[:n_trees]:
        features, only_raise, only_lower = _splits(tree)
        used[features] = True
        np.logical_and.at(raises, features, only_raise)
        np.logical_and.at(lowers, features, only_lower)
    found: dict[str, Effect] = {}
    for place, name in enumerate(facts.names):
        if not used[place]:
            found[name] = "none"
        elif name not in facts.categories and raises[place] != lowers[place]:
            found[name] = "raises" if raises[place] else "lowers"
    return found


def _splits(tree: Mapping[str, Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of each split: its feature; whether no leaf on its left is above one on its right; whether none is below."""
    left, right, feature = (np.asarray(tree[name], np.int64) for name in ("left_children", "right_children", "split_indices"))
    least = np.asarray(tree["split_conditions"], np.float32).copy()  # of a leaf: its value
    most = least.copy()
    splits: list[npt.NDArray[np.int64]] = []
    level = np.zeros(1, np.int64)
    while len(inner := level[left[level] != -1]):
        splits.append(inner)
        level = np.concatenate([left[inner], right[inner]])
    for inner in reversed(splits):
        least[inner] = np.minimum(least[left[inner]], least[right[inner]])
        most[inner] = np.maximum(most[left[inner]], most[right[inner]])
    every: npt.NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *splits])
    below, above = left[every], right[every]
    return feature[every], most[below] <= least[above], least[below] >= most[above]
