"""Values on which a compiled route must have the bits of XGBoost: at cuts of a model, just below, and extremes of float32."""

from __future__ import annotations

from typing import Final

import numpy as np

from batchscore.models.contract import Matrix

EXTREMES: Final = np.array([np.nan, 0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38], np.float32)


def near_cuts(chance: np.random.Generator, cuts: Matrix, n: int) -> Matrix:
    """``n`` values of a feature, float32, finite or missing: four of five at one of ``cuts`` or just below it, else extreme.

    ``cuts``: float32, none of them missing; of a feature without any, extremes stand in their place.
    """
    at = chance.choice(cuts if len(cuts) else EXTREMES, n)
    with np.errstate(over="ignore"):  # below the smallest float: missing, at the end
        below = np.nextafter(at, np.float32(-np.inf))
    values = np.where(chance.random(n) < 0.5, at, below)
    values = np.where(chance.random(n) < 0.8, values, chance.choice(EXTREMES, n))
    return np.where(np.isfinite(values), values, np.float32(np.nan))
