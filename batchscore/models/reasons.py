"""Why an account was flagged, in words: exact contributions, grouped to reason codes, the largest few.

Contributions are TreeSHAP's (Lundberg et al., 2018), in units of margin, and must add up to the margin that was scored.
Equal features give equal reasons: everything is summed in the model's order and ties go by code.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from batchscore.errors import PartitionError
from batchscore.flag import Reason
from batchscore.models.bundle import Manifest
from batchscore.models.contract import Frame, Matrix
from batchscore.models.golden import differing_rows
from batchscore.models.scorer import Scorer

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
    rows = zip(frame.matrix.tolist(), contributions[:, :-1].tolist(), strict=True)
    return tuple(_reasons_of(scorer.manifest, values, of_features) for values, of_features in rows)


def _reasons_of(manifest: Manifest, values: list[float], contributions: list[float]) -> tuple[Reason, ...]:
    """One row. Features of one code are summed; the one that weighs most (the first of equals) speaks for the code."""
    totals: dict[str, float] = {}
    speakers: dict[str, int] = {}
    for place, (name, contribution) in enumerate(zip(manifest.names, contributions, strict=True)):
        if contribution == 0:
            continue
        code = manifest.reasons[name].code
        totals[code] = totals.get(code, 0.0) + contribution
        if code not in speakers or abs(contribution) > abs(contributions[speakers[code]]):
            speakers[code] = place
    ranked = sorted((code for code, total in totals.items() if total != 0), key=lambda code: (-abs(totals[code]), code))
    return tuple(
        Reason(code=code, sentence=_sentence(manifest, speakers[code], values[speakers[code]]), contribution=totals[code])
        for code in ranked[:MAX_REASONS]
    )


def _sentence(manifest: Manifest, place: int, value: float) -> str:
    """The sentence of the feature at ``place`` with its value in words. Plain replacement: a template is text, not a program."""
    categories = manifest.features[place].categories
    words = in_words(value) if not categories or math.isnan(value) else str(categories[int(value)]) or '""'
    return manifest.reasons[manifest.names[place]].sentence.replace("{value}", words)


def in_words(value: float) -> str:
    """A feature's value for people: ``unknown``, ``1,234``, ``0.125``, ``1.5e+20``; four digits where it is not whole."""
    if math.isnan(value):
        return "unknown"
    if abs(value) < _WHOLE and (value == int(value) or abs(value) >= _NO_FRACTION):
        return f"{round(value):,}"
    return f"{value:.4g}"
