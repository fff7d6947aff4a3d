"""Calibration: from a margin to a probability that means what it says, where the model's own does not.

Both kinds never fall as the margin grows, so that a calibration changes scores and no order. Each is a fixed order of single
float32 operations on one margin, which IEEE 754 rounds one way only: the same bits on every machine, however rows are cut.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from batchscore.models.contract import Matrix
from batchscore.values import Value

MAX_KNOTS: Final = 10_000
_Margin = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Sigmoid(Value):
    """Platt scaling: the logistic function of ``slope * margin + intercept``, both rounded to float32."""

    kind: Literal["sigmoid"] = "sigmoid"
    slope: float = Field(gt=1e-6, le=1e6, allow_inf_nan=False)
    intercept: _Margin

    def logit(self, margin: Matrix) -> Matrix:
        """What the logistic function is to be taken of, float32 (n,): one product, then one sum."""
        with np.errstate(over="ignore"):  # beyond float32: infinite, whose probability is 0 or 1
            found: Matrix = margin * np.float32(self.slope) + np.float32(self.intercept)
        return found


class Isotonic(Value):
    """A line through knots (margin, score), in order; level before the first and after the last. Rounded to float32."""

    kind: Literal["isotonic"] = "isotonic"
    margins: tuple[_Margin, ...] = Field(min_length=2, max_length=MAX_KNOTS)
    scores: tuple[_Score, ...] = Field(min_length=2, max_length=MAX_KNOTS)

    @model_validator(mode="after")
    def _never_falls(self) -> Isotonic:
        x, y = (np.asarray(values, np.float32).tolist() for values in (self.margins, self.scores))
        if len(x) != len(y) or any(b <= a for a, b in pairwise(x)) or any(b < a for a, b in pairwise(y)):
            msg = "margins must grow (also as float32), and scores never fall, one for each → fit it again"
            raise ValueError(msg)
        with np.errstate(over="ignore"):
            rises = np.diff(np.asarray(y, np.float32)) / np.diff(np.asarray(x, np.float32))
        if not np.isfinite(rises).all():  # times no distance it would be NaN: the account at the knot itself had no score
            msg = "two margins are so close that the rise between their scores is no float32 → leave one out"
            raise ValueError(msg)
        return self

    def score(self, margin: Matrix) -> Matrix:
        """Scores of margins, float32 (n,); NaN for NaN."""
        x, y = (np.asarray(values, np.float32) for values in (self.margins, self.scores))
        at = np.clip(np.searchsorted(x, margin, side="right") - 1, 0, len(x) - 2)
        low, high = y[at], y[at + 1]
        rise = (high - low) / (x[at + 1] - x[at])
        inside = np.clip(margin, x[0], x[-1])  # NaN stays
        found: Matrix = np.clip((inside - x[at]) * rise + low, low, high)
        return found


Calibration = Annotated[Sigmoid | Isotonic, Field(discriminator="kind")]
