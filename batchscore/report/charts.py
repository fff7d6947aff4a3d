"""Bars as numbers: where each stands and how long it is. The page draws them as SVG in its own colours. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batchscore.report.histogram import EDGES, Counts

HEIGHT: Final = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar of a histogram: x and width in units of a bin, heights of `HEIGHT`. ``against``: of the other run, or None."""

    x: int
    height: float
    against: float | None
    n: int
    says: str


def histogram_bars(counts: Counts, against: Counts | None = None) -> tuple[Bar, ...]:
    """Heights are shares of the tallest bar on a scale of logarithms: a score in a million must still be seen.

    ``against`` is brought to as many scores as ``counts`` first, so that shapes are compared and not sizes.
    """
    scale = sum(counts) / max(1, sum(against)) if against else 0.0
    scaled = [n * scale for n in against] if against else None
    top = max([1.0, *counts, *(scaled or [])])
    return tuple(
        Bar(
            x=place,
            height=_height(n, top),
            against=None if scaled is None else _height(scaled[place], top),
            n=n,
            says=f"{bin_name(place)}: {n:,}",
        )
        for place, n in enumerate(counts)
    )


def _height(n: float, top: float) -> float:
    return round(HEIGHT * math.log1p(n) / math.log1p(top), 1)


def bin_name(place: int) -> str:
    """Which scores are in a bin, such as ``0.2 – 0.3``."""
    low, high = (0.0, *EDGES)[place], (*EDGES, 1.0)[place]
    return f"{low:g} – {high:g}"


def threshold_at(threshold: float) -> float:
    """Where a score stands on the axis of bins, each as wide as the next: 0 to the number of bins."""
    edges = (0.0, *EDGES, 1.0)
    place = max(i for i, edge in enumerate(edges[:-1]) if edge <= threshold)
    return round(place + (threshold - edges[place]) / (edges[place + 1] - edges[place]), 2)


def shares(values: Sequence[float]) -> tuple[float, ...]:
    """Each value in percent of the largest; all 0 when that is 0."""
    top = max(values, default=0.0)
    return tuple(round(100 * value / top, 2) if top else 0.0 for value in values)
