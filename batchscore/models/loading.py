"""From a bundle to a scorer: checked, loaded by a child that may die, proven by its golden rows, and the fastest there is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal

from batchscore.models.bundle import CheckedBundle, read_checked
from batchscore.models.scorer import Scorer
from batchscore.plan import Reference

if TYPE_CHECKING:
    from batchscore.models.xgboost_scorer import XGBoostScorer

Route = Literal["fastest", "xgboost"]
_loaded: Final[dict[tuple[str, int, Route], Scorer]] = {}
_loading: Final = threading.Lock()
KEPT: Final = 8  # bundles a process keeps: more than a run has; a cluster that stays up for weeks meets every one of its models


def load_scorer(reference: Reference, *, nthread: int = 1, route: Route = "fastest") -> Scorer:
    """The scorer of the bundle whose manifest ``reference`` names; loaded and proven once per process and digest.

    The last `KEPT` stay loaded: one may hold tables of 128 MiB.

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
            from batchscore.models.xgboost_scorer import XGBoostScorer  # noqa: PLC0415 (as above)

            checked = read_checked(reference)
            require_survivor_once(checked)
            scorer = XGBoostScorer(checked, nthread=nthread)
            _loaded[key] = fastest_scorer(checked, scorer) if route == "fastest" else scorer
        _loaded[key] = _loaded.pop(key)  # the last used is the last to go
        while len(_loaded) > KEPT:
            del _loaded[next(iter(_loaded))]
        return _loaded[key]


def fastest_scorer(checked: CheckedBundle, reference: XGBoostScorer) -> Scorer:
    """The compiled scorer where it is installed and passes its certificate; around either a compiled explainer, with its own."""
    try:
        from batchscore.models.compiled_explainer import CompiledExplainer  # noqa: PLC0415 (needs the extra `fast`)
        from batchscore.models.compiled_scorer import fastest  # noqa: PLC0415 (as above)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "llvmlite":
            raise
        return reference
    return CompiledExplainer(fastest(checked, reference), reference, checked.facts)
