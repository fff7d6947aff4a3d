"""The scorer: what turns a frame into margins, scores and contributions. A protocol, and the one way to get one.

XGBoost is the reference. The compiled scorer gives its bits ten times faster (`tests/contract/scorer`, `make bench`), where
the extra `fast` is installed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal, Protocol

from batchscore.errors import AttemptFailed
from batchscore.models.bundle import CheckedBundle, Manifest, read_checked
from batchscore.models.contract import Frame, Matrix
from batchscore.models.golden import Golden
from batchscore.plan import Reference

if TYPE_CHECKING:
    from batchscore.models.xgboost_scorer import XGBoostScorer


class Scorer(Protocol):
    """A loaded bundle. Safe to share between threads."""

    @property
    def name(self) -> str:
        """Who computes: ``xgboost`` or ``compiled``."""

    @property
    def n_fallbacks(self) -> int:
        """Frames of the calling thread so far whose margins came from the reference, because a sample of them differed."""

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


Route = Literal["fastest", "xgboost"]
_loaded: Final[dict[tuple[str, int, Route], Scorer]] = {}
_loading: Final = threading.Lock()


def load_scorer(reference: Reference, *, nthread: int = 1, route: Route = "fastest") -> Scorer:
    """The scorer of the bundle whose manifest ``reference`` names; loaded and proven once per process and digest.

    Every file's SHA-256 is checked before XGBoost sees a byte, a child process loads the model first (`probe`), and the golden
    rows must come out to the bit.

    Args:
        reference: The manifest.
        nthread: Threads of XGBoost.
        route: ``xgboost`` for the reference alone. The bits are the same.

    Raises:
        Refused: all of `bundle.read_checked`'s, ``model_crash`` and ``golden_mismatch``.
    """
    with _loading:
        key = (reference.sha256, nthread, route)
        if key not in _loaded:
            from batchscore.models.probe import require_survivor_once  # noqa: PLC0415 (reading manifests needs no xgboost)
            from batchscore.models.xgboost_scorer import XGBoostScorer  # noqa: PLC0415

            checked = read_checked(reference)
            require_survivor_once(checked)
            scorer = XGBoostScorer(checked, nthread=nthread)
            _loaded[key] = fastest_scorer(checked, scorer) if route == "fastest" else scorer
        return _loaded[key]


def fastest_scorer(checked: CheckedBundle, reference: XGBoostScorer) -> Scorer:
    """The compiled scorer where it is installed and passes its certificate."""
    try:
        from batchscore.models.compiled_scorer import fastest  # noqa: PLC0415 (needs the extra `fast`)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "llvmlite":
            raise
        return reference
    return fastest(checked, reference)
