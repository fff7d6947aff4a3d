"""Histograms of scores over fixed bins, and the drift between two of them. Pure.

A worker counts the scores it writes, per as-of, and leaves the counts in the footer of the score file. Counts add, so a run's
histogram is exact however the work was cut, stands as soon as a partition is committed, and costs a report the footers alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

# Finer towards both ends: nearly all accounts score near 0, and the flags come from the last percent.
EDGES: Final = (
    0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999,
)  # fmt: skip
N_BINS: Final = len(EDGES) + 1
_EDGES_32: Final = np.array(EDGES, np.float32)  # scores are float32: an edge is compared as the nearest float32
_FOOTER: Final = "batchscore.score_histograms"

Counts = tuple[int, ...]  # of N_BINS bins; bin i holds EDGES[i-1] <= score < EDGES[i]


def histogram(scores: npt.NDArray[np.float32]) -> Counts:
    """How many of the scores (float32, each within [0, 1]) lie in each bin.

    A compare with every edge is ten times faster than a search among them: 2 ns a score.
    """
    reached = [len(scores), *(int(np.count_nonzero(scores >= edge)) for edge in _EDGES_32), 0]
    return tuple(above - beyond for above, beyond in pairwise(reached))


def added(histograms: Iterable[Counts]) -> Counts:
    """The histogram of all scores together; all zeros for none."""
    return tuple(map(sum, zip((0,) * N_BINS, *histograms, strict=True)))


def psi(counts: Counts, against: Counts) -> float | None:
    """Population stability index of two histograms: the sum over bins of (p - q) * ln(p / q), natural logarithm, 0 for equal.

    Half a score is added to every bin of both, so that an empty bin is rare and not infinitely rare. None where either holds
    no score. By the usual reading (Siddiqi, Credit Risk Scorecards, 2006) below 0.1 nothing has moved, from 0.25 much has.
    """
    n, n_against = sum(counts), sum(against)
    if not n or not n_against:
        return None
    total, total_against = n + N_BINS / 2, n_against + N_BINS / 2
    shares = (((a + 0.5) / total, (b + 0.5) / total_against) for a, b in zip(counts, against, strict=True))
    return math.fsum((p - q) * math.log(p / q) for p, q in shares)


def to_footer(histograms: Mapping[datetime, Counts]) -> dict[str, str]:
    """Key and value for a score file's metadata."""
    held = {as_of.isoformat(): counts for as_of, counts in histograms.items()}
    return {_FOOTER: json.dumps(held, separators=(",", ":"))}


def from_footer(metadata: Mapping[bytes, bytes] | None) -> dict[datetime, Counts]:
    """The inverse of `to_footer`, from what Parquet gives back.

    Raises:
        ValueError: the file holds no histograms, or damaged ones.
    """
    held = (metadata or {}).get(_FOOTER.encode())
    if held is None:
        msg = "the file holds no histograms"
        raise ValueError(msg)
    found = {datetime.fromisoformat(as_of): tuple(counts) for as_of, counts in json.loads(held).items()}
    if not all(len(counts) == N_BINS and all(isinstance(n, int) for n in counts) for counts in found.values()):
        msg = "the histograms have other bins"
        raise ValueError(msg)
    return found
