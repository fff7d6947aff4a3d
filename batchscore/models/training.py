"""Trains the small models of the demo and the tests. batchscore scores models that teams bring; this is no training framework."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xgboost as xgb


def train(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    names: Sequence[str],
    *,
    n_trees: int,
    depth: int,
    eta: float = 0.1,
) -> xgb.Booster:
    """A binary:logistic booster of ``n_trees`` trees; equal input gives equal trees (one thread, no sampling).

    Args:
        features: float32 (n, F), NaN is missing.
        labels: 0 or 1, (n,).
        names: F feature names.
        n_trees: Rounds of boosting.
        depth: Largest depth of a tree.
        eta: Learning rate.
    """
    matrix = xgb.DMatrix(features, labels, feature_names=list(names), nthread=1)
    parameters = {"objective": "binary:logistic", "max_depth": depth, "eta": eta, "tree_method": "hist", "nthread": 1, "seed": 0}
    return xgb.train(parameters, matrix, n_trees)
