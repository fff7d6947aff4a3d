"""The scorer: what turns a frame into margins, scores and contributions. A protocol; `loading` is the one way to get one.

XGBoost is the reference. Compiled kernels give its margins ten times faster, and its contributions thirty times, to the bit
(`tests/contract/scorer`, `make bench`), where the extra `fast` is installed.
"""

from __future__ import annotations

from typing import Protocol

from batchscore.errors import AttemptFailed
from batchscore.models.bundle import Manifest
from batchscore.models.contract import Frame, Matrix
from batchscore.models.golden import Golden


class Scorer(Protocol):
    """A loaded bundle. Safe to share between threads."""

    @property
    def name(self) -> str:
        """Who computes: ``xgboost`` or ``compiled``."""

    @property
    def n_fallbacks(self) -> int:
        """Frames of the calling thread so far that the reference did again, because a sample of their bits differed."""

    @property
    def explained_by(self) -> str:
        """Who computed the calling thread's last contributions: ``xgboost`` or ``compiled``."""

    @property
    def names(self) -> tuple[str, ...]:
        """Features in the model's order: what to `conform` to."""

    @property
    def bundle_digest(self) -> str:
        """Which bundle this is."""

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""

    @property
    def riders(self) -> Golden:
        """The golden rows that ride along in every partition; see `require_riders`."""

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


def require_riders(scorer: Scorer) -> None:
    """Score a few golden rows again: they ride along in every partition, so that a worker gone bad is found.

    Loading proved the worker; memory and processors fail later, and mostly stay failed: so once is enough, after the last
    score. A frame of their own, since putting the rows into another would copy it.

    Raises:
        AttemptFailed: ``golden_mismatch``: another worker may do better.
    """
    margins = scorer.margin(scorer.riders.frame)
    n_differ = scorer.riders.n_differing(margins, scorer.score_of(margins))
    if n_differ:
        from batchscore.models.machine import this_machine  # noqa: PLC0415 (of the message alone)

        raise AttemptFailed(
            "golden_mismatch",
            f"{n_differ} of {len(margins)} golden rows came out right when the worker loaded the bundle, and differ now",
            where=f"{scorer.manifest.name} on {this_machine()}",
            remedy="take this host out: its memory or processor is at fault",
        )
