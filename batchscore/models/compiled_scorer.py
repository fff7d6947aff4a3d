"""The fast scorer: `kernel`'s margins, which count only as long as they are XGBoost's to the bit.

It is used when a certificate holds: equal bits on the bundle's golden rows, and on rows made of the model's own cut points,
their neighbours, zeros, the largest and smallest floats, and missing values. After that a sample of every frame goes through
XGBoost too, and one differing bit gives the whole frame to XGBoost. Probabilities are XGBoost's anyway; for contributions see
`compiled_explainer`.
"""

from __future__ import annotations

import logging
import threading
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa

from batchscore.models.bundle import CheckedBundle, Manifest
from batchscore.models.contract import Frame, Matrix, conform, require_names
from batchscore.models.forest import Forest, read_forest
from batchscore.models.golden import Golden, differing_rows, read_golden, spaced
from batchscore.models.kernel import score_margins
from batchscore.models.scorer import Scorer
from batchscore.models.witnesses import near_cuts
from batchscore.models.xgboost_scorer import XGBoostScorer

N_WITNESSES: Final = 1_024
N_SAMPLED: Final = 64  # rows of a frame that XGBoost scores too: some 1 % of the time
# NotCompilable is a ValueError; of LLVM: a processor or a sandbox it cannot make code for (RuntimeError, OSError); the others: a
# model that is odd where nothing reads it, such as a node that no way leads to.
_NOT_USED: Final = (ValueError, RuntimeError, OSError, LookupError, ArithmeticError)
_log: Final = logging.getLogger(__name__)


class CompiledScorer:
    """``reference`` with its margins computed by the kernel from ``forest``."""

    def __init__(self, reference: XGBoostScorer, forest: Forest) -> None:
        self._reference = reference
        self._forest = forest
        self._base_margin = reference.base_margin()
        self.name: str = "compiled"
        self.manifest: Manifest = reference.manifest
        self.names: tuple[str, ...] = reference.names
        self.bundle_digest: str = reference.bundle_digest
        self.riders: Golden = reference.riders
        self.explained_by: str = reference.explained_by
        self._of_thread = threading.local()  # attempts in other threads share this scorer: each hears of its own frames

    @property
    def n_fallbacks(self) -> int:
        """See `Scorer.n_fallbacks`."""
        return getattr(self._of_thread, "n_fallbacks", 0)

    def margin(self, frame: Frame) -> Matrix:
        """See `Scorer.margin`."""
        require_names(frame, self.names)
        margins = score_margins(self._forest, frame.matrix, self._base_margin)
        margins[frame.unscorable] = np.nan
        sampled = spaced(len(frame), N_SAMPLED)
        expected = self._reference.margin(frame.take(sampled))
        if differing_rows(margins[sampled], expected).any():
            self._of_thread.n_fallbacks = self.n_fallbacks + 1
            return self._reference.margin(frame)
        return margins

    def score_of(self, margin: Matrix) -> Matrix:
        """See `Scorer.score_of`."""
        return self._reference.score_of(margin)

    def contributions(self, frame: Frame) -> Matrix:
        """See `Scorer.contributions`."""
        return self._reference.contributions(frame)

    def n_uncertified(self, frame: Frame) -> int:
        """How many rows of a finite frame have other bits than XGBoost's."""
        margins = score_margins(self._forest, frame.matrix, self._base_margin)
        return int(differing_rows(margins, self._reference.margin(frame)).sum())


def fastest(checked: CheckedBundle, reference: XGBoostScorer) -> Scorer:
    """The compiled scorer, when it passes its certificate; else ``reference``, and the log says why."""
    manifest = reference.manifest
    try:
        forest = read_forest(checked.facts, manifest.iteration_range[1])
        compiled = CompiledScorer(reference, forest)
        golden = read_golden(checked.golden, manifest)
        frames = (golden.frame, witnesses(forest, manifest.names))
        n_differ = sum(compiled.n_uncertified(frame) for frame in frames)
    except _NOT_USED as error:
        _log.warning("compiled scorer not used", extra={"bundle": manifest.name, "cause": type(error).__name__})
        return reference
    if n_differ:
        _log.error("compiled scorer failed its certificate", extra={"bundle": manifest.name, "n_rows": n_differ})
        return reference
    return compiled


def witnesses(forest: Forest, names: tuple[str, ...]) -> Frame:
    """`N_WITNESSES` rows for a certificate; see `near_cuts`."""
    chance = np.random.default_rng(0)
    read = zip(forest.feature.tolist(), pairwise(forest.table.tolist()), strict=True)
    cuts = {feature: forest.cuts[first:end] for feature, (first, end) in read}
    columns = {}
    for place, name in enumerate(names):
        own = cuts.get(place, forest.cuts[:0])
        columns[name] = near_cuts(chance, own[~np.isnan(own)], N_WITNESSES)
    return conform(pa.table(columns), names)
