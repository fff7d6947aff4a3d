"""How far scores have moved since another run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from batchscore.report.histogram import Counts, psi
from batchscore.report.model import Drift, DriftLine

MOVED: Final = 0.1
MOVED_MUCH: Final = 0.25


def drift_against(run_id: str, mine: Mapping[datetime, Counts], theirs: Mapping[datetime, Counts]) -> Drift | None:
    """Each as-of against the same of the other run, and the latest against its latest where it has not the same.

    None when either run has no scores.
    """
    if not mine or not theirs:
        return None
    latest = max(mine)
    pairs = {as_of: as_of for as_of in mine if as_of in theirs}
    pairs.setdefault(latest, max(theirs))
    lines = [
        DriftLine(as_of=as_of, against_as_of=against, psi=psi(mine[as_of], theirs[against]))
        for as_of, against in sorted(pairs.items())
    ]
    return Drift(against_run=run_id, latest=lines[-1], against_counts=theirs[pairs[latest]], lines=tuple(lines))


def in_words(value: float | None) -> str:
    """A population stability index as it is usually read."""
    if value is None:
        return "no scores to compare"
    if value < MOVED:
        return "stable"
    return "moved" if value < MOVED_MUCH else "moved much"
