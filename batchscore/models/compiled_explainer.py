"""The fast explainer: contributions by `attribution_kernel`, which count only as long as they are XGBoost's to the bit.

Its tables cost what XGBoost's contributions of some hundred rows do. So XGBoost explains until it has been asked for as many
rows, and then they are made, and used where a certificate holds: equal bits on golden rows and on rows that lie on the model's
own cuts. After that a few rows of every frame go through XGBoost too, and one differing bit gives the whole frame to it.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

import numpy as np
import pyarrow as pa

from batchscore.models.attribution import Attribution, read_attribution, read_nodes
from batchscore.models.attribution_kernel import contributions
from batchscore.models.bundle import Manifest
from batchscore.models.contract import Frame, Matrix, conform, require_names
from batchscore.models.forest import NotCompilable
from batchscore.models.golden import Golden, differing_rows, spaced
from batchscore.models.model_file import ModelFacts
from batchscore.models.scorer import Scorer
from batchscore.models.witnesses import near_cuts
from batchscore.models.xgboost_scorer import XGBoostScorer

N_WITNESSES: Final = 48
_ROWS_PER_SAMPLED: Final = 256  # XGBoost takes as long for one row as the kernel for thirty
_WORTH: Final = 3  # patterns of a leaf whose making takes as long as XGBoost takes for the leaf, in one row
# Of LLVM: a processor or a sandbox it cannot make code for (RuntimeError, OSError); the others: a model that is odd where nothing
# reads it, or no memory for the tables.
_NOT_USED: Final = (ValueError, RuntimeError, OSError, LookupError, ArithmeticError, MemoryError)
_log: Final = logging.getLogger(__name__)


class CompiledExplainer:
    """``scorer`` with its contributions from tables, once they are worth it. ``reference`` and ``facts``: of the same bundle."""

    def __init__(self, scorer: Scorer, reference: XGBoostScorer, facts: ModelFacts) -> None:
        self._scorer = scorer
        self._reference = reference
        self._facts: ModelFacts | None = facts  # twice a JSON file's size: held until tables are made, or never will be
        self._n_rounds = reference.manifest.iteration_range[1]
        self._making = threading.Lock()
        self._attribution: Attribution | None = None
        self._of_thread = threading.local()
        self.name: str = scorer.name
        self.manifest: Manifest = scorer.manifest
        self.names: tuple[str, ...] = scorer.names
        self.bundle_digest: str = scorer.bundle_digest
        self.riders: Golden = scorer.riders
        self._n_before = self._worth(facts)  # rows that XGBoost explains before tables are made

    @property
    def n_fallbacks(self) -> int:
        """See `Scorer.n_fallbacks`."""
        own: int = getattr(self._of_thread, "n_fallbacks", 0)
        return self._scorer.n_fallbacks + own

    @property
    def explained_by(self) -> str:
        """See `Scorer.explained_by`."""
        return getattr(self._of_thread, "explained_by", "xgboost")

    def margin(self, frame: Frame) -> Matrix:
        """See `Scorer.margin`."""
        return self._scorer.margin(frame)

    def score_of(self, margin: Matrix) -> Matrix:
        """See `Scorer.score_of`."""
        return self._scorer.score_of(margin)

    def contributions(self, frame: Frame) -> Matrix:
        """See `Scorer.contributions`."""
        require_names(frame, self.names)
        attribution = self._after(len(frame))
        self._of_thread.explained_by = "xgboost"
        if attribution is None:
            return self._reference.contributions(frame)
        found = contributions(attribution, frame.matrix, self._reference.base_margin())
        found[frame.unscorable] = np.nan
        sampled = spaced(len(frame), -(-len(frame) // _ROWS_PER_SAMPLED))
        if differing_rows(found[sampled], self._reference.contributions(frame.take(sampled))).any():
            self._of_thread.n_fallbacks = getattr(self._of_thread, "n_fallbacks", 0) + 1
            return self._reference.contributions(frame)
        self._of_thread.explained_by = "compiled"
        return found

    def certify(self) -> bool:
        """Make the tables now, if it was not done; whether they are used from now on. The log says why not."""
        with self._making:
            if self._facts is not None:
                self._attribution, self._facts = self._certified(self._facts), None
            return self._attribution is not None

    def _after(self, n_rows: int) -> Attribution | None:
        """The tables, if they are there or worth making after that many more rows."""
        if self._facts is not None:
            with self._making:
                self._n_before -= n_rows
            if self._n_before <= 0:
                self.certify()
        return self._attribution

    def _worth(self, facts: ModelFacts) -> int:
        """How many rows XGBoost explains in the time that making tables takes. Where none can be made, the trees are let go."""
        try:
            nodes = read_nodes(facts, self._n_rounds)
        except _NOT_USED as error:
            self._not_used(error)
            self._facts = None
            return 0
        return _WORTH * nodes.n_entries // nodes.n_leaves

    def _certified(self, facts: ModelFacts) -> Attribution | None:
        try:
            attribution = read_attribution(facts, self._n_rounds)
            base_margin = self._reference.base_margin()
            n_differ = 0
            for frame in (self.riders.frame, witnesses(attribution, self.manifest)):
                found = contributions(attribution, frame.matrix, base_margin)
                n_differ += int(differing_rows(found, self._reference.contributions(frame)).any(axis=1).sum())
        except _NOT_USED as error:
            self._not_used(error)
            return None
        if n_differ:
            _log.error("compiled explainer failed its certificate", extra={"bundle": self.manifest.name, "n_rows": n_differ})
            return None
        return attribution

    def _not_used(self, error: Exception) -> None:
        # That tables would be too large is no fault, and says nothing that anybody could mend.
        level = logging.INFO if isinstance(error, NotCompilable) else logging.WARNING
        _log.log(level, "compiled explainer not used", extra={"bundle": self.manifest.name, "cause": type(error).__name__})


def witnesses(attribution: Attribution, manifest: Manifest) -> Frame:
    """`N_WITNESSES` rows for a certificate: numbers as `near_cuts` makes them, and categories, one of five missing."""
    chance = np.random.default_rng(0)
    numeric = (attribution.child >= 0) & (attribution.n_codes == 0)
    columns: dict[str, pa.Array] = {}
    for place, name in enumerate(manifest.names):
        if name in manifest.category_sets:
            known = manifest.category_sets[name].column
            codes, missing = chance.integers(0, len(known), N_WITNESSES), chance.random(N_WITNESSES) < 0.2
            columns[name] = known.take(pa.array(codes, mask=missing))
            continue
        columns[name] = pa.array(near_cuts(chance, attribution.cut[numeric & (attribution.feature == place)], N_WITNESSES))
    return conform(pa.table(columns), manifest.names, manifest.category_sets)
