"""The reference scorer: XGBoost's own predictor, behind names and golden rows.

Margins are predicted once. Their probabilities come from XGBoost too, from a booster without trees whose base margin is
the margin. Of 20 million margins put through a booster with trees (random bits, and -110 to 110), NumPy's sigmoid differed
in one of 12 (float32) or of 7,000 (float64, then rounded), the empty booster in none. It takes about 20 ns a row, where 200
trees of depth 6 take about 5 µs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import xgboost as xgb

from batchscore.errors import Refused
from batchscore.models.calibration import Isotonic, Sigmoid
from batchscore.models.contract import Frame, Matrix, require_names
from batchscore.models.golden import N_RIDERS, Golden, read_golden
from batchscore.models.machine import this_machine

if TYPE_CHECKING:
    from batchscore.models.bundle import CheckedBundle, Manifest


class XGBoostScorer:
    """Scores with ``nthread`` threads; the number changes the speed and never a bit.

    Raises:
        Refused: ``bundle_invalid`` (XGBoost cannot load the model), ``golden_mismatch``.
    """

    def __init__(self, checked: CheckedBundle, *, nthread: int = 1) -> None:
        self.manifest: Manifest = checked.bundle.manifest
        self.names: tuple[str, ...] = self.manifest.names
        self.bundle_digest: str = checked.bundle.digest
        self.name: str = "xgboost"
        self.n_fallbacks: int = 0
        self.explained_by: str = "xgboost"
        self._nthread = nthread
        self._booster = load_booster(checked.model, nthread=nthread, where=self.manifest.name)
        self._explaining = threading.Lock()  # only in-place prediction is documented as safe between threads
        self._golden = read_golden(checked.golden, self.manifest)
        self.riders: Golden = self._golden.few(N_RIDERS)
        margins = self.margin(self._golden.frame)
        self._require(self._golden, margins, self.score_of(margins))

    def margin(self, frame: Frame) -> Matrix:
        """See `Scorer.margin`."""
        require_names(frame, self.names)
        if len(frame) == 0:
            return np.empty(0, np.float32)
        margins = predict_in_place(self._booster, frame.matrix, self.manifest.iteration_range)
        margins[frame.unscorable] = np.nan
        return margins

    def score_of(self, margin: Matrix) -> Matrix:
        """See `Scorer.score_of`."""
        return calibrated(margin, self.manifest.calibration, nthread=self._nthread)

    def contributions(self, frame: Frame) -> Matrix:
        """See `Scorer.contributions`."""
        require_names(frame, self.names)
        if len(frame) == 0:
            return np.empty((0, len(self.names) + 1), np.float32)
        finite = np.where(frame.unscorable[:, None], np.float32(np.nan), frame.matrix)  # DMatrix refuses infinite values
        with self._explaining:
            rows = dmatrix(finite, self.names, tuple(self.manifest.category_sets), nthread=self._nthread)
            found: Matrix = self._booster.predict(rows, pred_contribs=True, iteration_range=self.manifest.iteration_range)
        found[frame.unscorable] = np.nan
        return found

    def base_margin(self) -> np.float32:
        """The margin before any tree, as XGBoost makes it from the base score."""
        score = json.loads(self.manifest.base_score)  # "5E-1" up to XGBoost 3.0, "[5E-1]" from 3.1
        empty = _without_trees(1, float(score[0] if isinstance(score, list) else score))
        margin: np.float32 = empty.inplace_predict(np.zeros((1, 1), np.float32), predict_type="margin").reshape(-1)[0]
        return margin

    def require_golden_by_dmatrix(self) -> None:
        """The golden rows once more, by XGBoost's other route.

        Raises:
            Refused: ``golden_mismatch``.
        """
        with self._explaining:
            categorical = tuple(self.manifest.category_sets)
            margins, raw = predict_by_dmatrix(self._booster, self._golden.frame, self.manifest.iteration_range, categorical)
        expected = replace(self._golden, scores=sigmoid(self._golden.margins, nthread=1))
        self._require(expected, margins, raw)

    def _require(self, golden: Golden, margins: Matrix, scores: Matrix) -> None:
        n_differ = golden.n_differing(margins, scores)
        if n_differ:
            packed = f"packed by XGBoost {self.manifest.packed_by} on {self.manifest.packed_on}"
            raise Refused(
                "golden_mismatch",
                f"{n_differ} of {len(margins)} golden rows differ: {packed}, here is {xgb.__version__} on {this_machine()}",
                where=self.manifest.name,
                remedy="score on CPUs and a version like those it was packed on, or pack it again on these",
            )


def load_booster(model: bytes, *, nthread: int, where: str) -> xgb.Booster:
    """XGBoost's own reading of a model file that `model_file` has let pass.

    Raises:
        Refused: ``bundle_invalid``: XGBoost does not take it.
    """
    try:
        return xgb.Booster({"nthread": nthread}, model_file=bytearray(model))
    except (xgb.core.XGBoostError, ValueError) as error:
        raise Refused("bundle_invalid", "XGBoost cannot load the model", where=where, remedy="save and pack it again") from error


def dmatrix(matrix: Matrix, names: Sequence[str], categorical: Collection[str], *, nthread: int) -> xgb.DMatrix:
    """Rows as XGBoost's other route wants them; the columns ``categorical`` hold codes."""
    types = ["c" if name in categorical else "q" for name in names] if categorical else None
    return xgb.DMatrix(
        matrix,
        missing=np.nan,
        feature_names=list(names),
        feature_types=types,
        enable_categorical=bool(categorical),
        nthread=nthread,
    )


def predict_in_place(booster: xgb.Booster, matrix: Matrix, iteration_range: tuple[int, int]) -> Matrix:
    """Margins of rows, float32 (n,), by the route that scoring takes."""
    margins: Matrix = booster.inplace_predict(matrix, predict_type="margin", iteration_range=iteration_range, missing=np.nan)
    return margins.reshape(-1)


def predict_by_dmatrix(
    booster: xgb.Booster, frame: Frame, iteration_range: tuple[int, int], categorical: Collection[str]
) -> tuple[Matrix, Matrix]:
    """Margins and probabilities of finite rows, float32 (n,) each, by XGBoost's other route: what packing compares with."""
    rows = dmatrix(frame.matrix, frame.names, categorical, nthread=1)
    margins: Matrix = booster.predict(rows, output_margin=True, iteration_range=iteration_range)
    scores: Matrix = booster.predict(rows, iteration_range=iteration_range)
    return margins, scores


def sigmoid(margin: Matrix, *, nthread: int) -> Matrix:
    """XGBoost's probabilities of margins, float32 (n,), bit for bit."""
    if len(margin) == 0:
        return np.empty(0, np.float32)
    scores: Matrix = _without_trees(nthread).inplace_predict(
        np.zeros((len(margin), 1), np.float32), base_margin=np.ascontiguousarray(margin, np.float32), missing=np.nan
    )
    return scores.reshape(-1)


def calibrated(margin: Matrix, calibration: Sigmoid | Isotonic | None, *, nthread: int) -> Matrix:
    """Scores of margins, float32 (n,): XGBoost's own probabilities, or a calibration's."""
    if isinstance(calibration, Isotonic):
        return calibration.score(margin)
    return sigmoid(margin if calibration is None else calibration.logit(margin), nthread=nthread)


@cache
def _without_trees(nthread: int, base_score: float = 0.5) -> xgb.Booster:
    parameters = {"objective": "binary:logistic", "base_score": base_score, "nthread": nthread}
    return xgb.train(parameters, xgb.DMatrix(np.zeros((1, 1), np.float32), np.zeros(1)), num_boost_round=0)
