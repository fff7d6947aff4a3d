"""Why an account was flagged, in words: exact contributions, grouped to reason codes, the largest few.

Contributions are TreeSHAP's (Lundberg et al., 2018), in units of margin, and must add up to the margin that was scored.
Equal features give equal reasons: everything is summed in the model's order and ties go by code.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from batchscore.errors import PartitionError
from batchscore.flag import Reason
from batchscore.models.bundle import Manifest
from batchscore.models.contract import Frame, Matrix
from batchscore.models.golden import differing_rows
from batchscore.models.scorer import Scorer

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
MAX_REASONS: Final = 5
TOLERANCE: Final = 1e-4  # contributions and bias against the margin: float32 sums in another order
_NO_FRACTION: Final = 1_000  # from here on a fraction is not said
_WHOLE: Final = 1e15  # from here on a whole number is said in powers of ten


def explain(scorer: Scorer, frame: Frame, margins: Matrix) -> tuple[tuple[Reason, ...], ...]:
    """The reasons of each row, the largest absolute contribution first.

    Args:
        scorer: Of the bundle that scored the rows.
        frame: The features of the rows, made again, (n, F).
        margins: What was scored, float32 (n,).

    Raises:
        PartitionError: ``margin_mismatch``: the features give another margin now, or contributions do not add up to it.
        Refused: ``feature_contract``: the frame is another model's.
    """
    n_differ = int(differing_rows(scorer.margin(frame), margins).sum())
    if n_differ:
        raise PartitionError(
            "margin_mismatch",
            f"{n_differ} of {len(margins)} margins are not those that were scored",
            remedy="the inputs or the library versions changed since scoring: run again with --again",
        )
    contributions = scorer.contributions(frame).astype(np.float64)
    gaps = np.abs(contributions.sum(axis=1) - margins)
    n_apart = int((~(gaps <= TOLERANCE)).sum())  # a NaN is apart too
    if n_apart:
        raise PartitionError(
            "margin_mismatch",
            f"the contributions of {n_apart} of {len(margins)} rows do not add up to the margin",
            remedy="report it to batchscore with the bundle: this must not be",
        )
    words = _Words(scorer.manifest)
    codes, speakers, totals = words.largest(contributions[:, :-1])
    values = np.take_along_axis(frame.matrix, speakers, axis=1)
    rows = zip(*(held.tolist() for held in (codes, speakers, totals, values)), strict=True)
    return tuple(
        tuple(
            Reason(code=words.codes[code], sentence=words.sentence(speaker, value), contribution=total)
            for code, speaker, total, value in zip(*row, strict=True)
            if total != 0
        )
        for row in rows
    )


class _Words:
    """A bundle's reason codes in order, which feature is of which, and their sentences."""

    def __init__(self, manifest: Manifest) -> None:
        reasons = [manifest.reasons[name] for name in manifest.names]
        self.codes = sorted({reason.code for reason in reasons})
        self._places = [[place for place, reason in enumerate(reasons) if reason.code == code] for code in self.codes]
        self._sentences = [reason.sentence for reason in reasons]
        self._categories = [feature.categories for feature in manifest.features]

    def largest(self, contributions: Numbers) -> tuple[Places, Places, Numbers]:
        """Of each row of (n, F), up to `MAX_REASONS` codes, the largest total first: their places, who speaks, totals.

        Features of one code are summed in the model's order; the one that weighs most (the first of equals) speaks for the code.
        """
        n = len(contributions)
        totals, speakers = np.zeros((n, len(self.codes))), np.zeros((n, len(self.codes)), np.int64)
        for code, places in enumerate(self._places):
            for place in places:
                totals[:, code] += contributions[:, place]
            speakers[:, code] = np.array(places)[np.abs(contributions[:, places]).argmax(axis=1)]
        first = np.argsort(-np.abs(totals), axis=1, kind="stable")[:, :MAX_REASONS]  # of equals the first by code
        return first, np.take_along_axis(speakers, first, axis=1), np.take_along_axis(totals, first, axis=1)

    def sentence(self, place: int, value: float) -> str:
        """Of the feature at ``place``, with its value in words. Plain replacement: a template is text, not a program."""
        categories = self._categories[place]
        words = in_words(value) if not categories or math.isnan(value) else str(categories[int(value)]) or '""'
        return self._sentences[place].replace("{value}", words)


def in_words(value: float) -> str:
    """A feature's value for people: ``unknown``, ``1,234``, ``0.125``, ``1.5e+20``; four digits where it is not whole."""
    if math.isnan(value):
        return "unknown"
    if abs(value) < _WHOLE and (value == int(value) or abs(value) >= _NO_FRACTION):
        return f"{round(value):,}"
    return f"{value:.4g}"
