"""The scorer: what turns a frame into margins, scores and contributions. A protocol, and the one way to get one.

XGBoost is the only implementation and the reference; a compiled one must give its bits (`tests/contract/scorer`).
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from batchscore.models.bundle import Manifest, read_checked
from batchscore.models.contract import Frame, Matrix
from batchscore.plan import Reference


class Scorer(Protocol):
    """A loaded bundle. Safe to share between threads."""

    @property
    def names(self) -> tuple[str, ...]:
        """Features in the model's order: what to `conform` to."""

    @property
    def bundle_digest(self) -> str:
        """Which bundle this is."""

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""

    def margin(self, frame: Frame) -> Matrix:
        """Raw sums of leaves and base margin, float32 (n,); NaN for nonfinite rows.

        Raises:
            Refused: ``feature_contract`` for a frame conformed to other names.
        """

    def score_of(self, margin: Matrix) -> Matrix:
        """The probabilities of margins, float32 (n,), with the bits of XGBoost's own prediction; NaN for NaN."""

    def contributions(self, frame: Frame) -> Matrix:
        """Exact TreeSHAP in units of margin, float32 (n, F + 1); the last column is the bias. NaN for nonfinite rows.

        Raises:
            Refused: ``feature_contract`` for a frame conformed to other names.
        """


_loaded: Final[dict[tuple[str, int], Scorer]] = {}
_loading: Final = threading.Lock()


def load_scorer(reference: Reference, *, nthread: int = 1) -> Scorer:
    """The scorer of the bundle whose manifest ``reference`` names; loaded and proven once per process and digest.

    Every file's SHA-256 is checked before XGBoost sees a byte, and the golden rows must come out to the bit.

    Raises:
        Refused: all of `bundle.read_checked`'s, and ``golden_mismatch``.
    """
    with _loading:
        key = (reference.sha256, nthread)
        if key not in _loaded:
            from batchscore.models.xgboost_scorer import XGBoostScorer  # noqa: PLC0415 (reading manifests needs no xgboost)

            _loaded[key] = XGBoostScorer(read_checked(reference), nthread=nthread)
        return _loaded[key]
