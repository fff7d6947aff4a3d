"""How good flags are, from what people decided: precision, recall with what was missed, calibration, other thresholds. Pure.

Recall takes what nobody selected by score: accounts that were drawn at random below the line. In a stratum of N accounts of which
n were looked at and y confirmed, N·y/n are abusive: an unbiased estimate, since within it each was as likely as any other.

**Intervals** are of shares A / (A + B), A and B being sums over strata. Each stratum has the two distributions whose quantiles
are the exact (Clopper-Pearson) bounds of its rate, Beta(y, n − y + 1) below and Beta(y + 1, n − y) above; the lower bound of the
share is a quantile of A drawn from below and B from above, the upper of the other way round. With one stratum that is the exact
interval, and it is never sure of what it has not seen: no abuse among 20 looked at of a million leaves room for many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from batchscore.values import Value

LEVEL: Final = 0.95
DRAWS: Final = 4_000
TOP: Final = "flagged"  # the stratum of what was selected by its score: all of it was put before people
CALIBRATION_EDGES: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)

Floats = npt.NDArray[np.float64]
Key = tuple[str, str, str]  # run ("": all of them), model, stratum


class Share(Value):
    """A share, and the interval that covers it 95 times in 100; None where nothing is known of it."""

    value: float | None
    low: float
    high: float


class StratumSeen(Value):
    """``n`` accounts, of which people decided on ``n_decided``; ``n_confirmed`` of these are abusive."""

    name: str
    n: int
    n_decided: int
    n_confirmed: int


class Quality(Value):
    """Of flags of one model, one segment, or all. ``missed``: abusive accounts below the line, estimated.

    None of it, and of recall, where none was drawn, or where people decided on nobody of a stratum.
    """

    of: str
    n_flags: int
    n_decided: int
    n_inconclusive: int
    precision: Share
    recall: Share | None
    missed: float | None
    strata: tuple[StratumSeen, ...]


class CalibrationBin(Value):
    """Accounts with ``low`` <= score < ``high``: their mean score, and the share of them that is abusive."""

    low: float
    high: float
    n_decided: int
    mean_score: float
    abusive: Share


class ThresholdSeen(Value):
    """What another threshold would give. ``reviews``: accounts at or above it, of each as-of on average."""

    threshold: float
    precision: Share
    recall: Share
    reviews: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One account that was put before people: ``state`` confirmed, cleared, or anything else (then it tells nothing)."""

    score: float
    state: str
    stratum: str
    segment: str | None
    model: str
    run: str = ""

    @property
    def key(self) -> Key:
        """Its stratum. Below the line each run's are its own, with the probabilities that it drew with."""
        return "" if self.stratum == TOP else self.run, self.model, self.stratum


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """All that is known. ``sizes``: `Key` → accounts. ``blank``: those drawn that are out of question: withheld."""

    seen: Sequence[Seen]
    sizes: Mapping[Key, int]
    blank: Mapping[Key, int]
    n_as_ofs: int

    def unseen(self) -> list[Key]:
        """Strata below the line of which people decided on nobody, so that nothing is known of what was missed."""
        looked = _n_by((one for one in self.seen if _tells(one)), self)
        return [key for key, n in sorted(self.sizes.items()) if n and key[2] != TOP and not looked.get(key)]


@dataclass(frozen=True, slots=True)
class Strata:
    """``y`` of ``n`` looked at among ``size`` accounts, each float64 (…, strata)."""

    y: Floats
    n: Floats
    size: Floats


def share(hits: Strata, others: Strata, *, same: bool = False, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """(value, low, high) of A / (A + B), each of the leading shape; NaN for a value of nothing, whose bounds are 0 and 1.

    ``same``: both are parts of the same strata, so where one is more the other is less.
    """
    rng = np.random.default_rng(seed)
    a, b = (np.sum(_estimate(one), axis=-1) for one in (hits, others))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = a / (a + b)
        low = _bound(hits, others, rng, same=same, upper=False)
        high = _bound(hits, others, rng, same=same, upper=True)
    low, high = np.where(np.isnan(low), 0.0, low), np.where(np.isnan(high), 1.0, high)
    return value, np.fmin(low, np.where(np.isnan(value), 0.0, value)), np.fmax(high, np.where(np.isnan(value), 1.0, value))


def quality_of(known: Known, of: str = "all", *, model: str | None = None, segment: str | None = None) -> Quality:
    """Precision and recall of all flags, of those of one model, or of one segment."""
    keys = sorted((key for key, n in known.sizes.items() if n and model in {None, key[1]}), key=lambda key: (key[2] != TOP, key))
    mine = [one for one in known.seen if model in {None, one.model}]
    told = [one for one in mine if segment in {None, one.segment}]
    strata = [_strata(known, mine, told, key) for key in keys]
    at_top = [one for key, one in zip(keys, strata, strict=True) if key[2] == TOP]
    below = [one for key, one in zip(keys, strata, strict=True) if key[2] != TOP]
    is_known = bool(below) and not any(model in {None, whose} for _, whose, _ in known.unseen())
    top = _joined(at_top)
    flagged = [one for one in told if one.stratum == TOP]
    n_decided, n_confirmed = (float(part.sum()) for part in (_decided(flagged), _confirmed(flagged)))
    n_flags = len(flagged)
    at_review = Strata(*(np.array([value]) for value in (n_confirmed, n_decided, n_flags)))
    not_so = Strata(*(np.array([value]) for value in (n_decided - n_confirmed, n_decided, n_flags)))
    rest = _joined(below)
    return Quality(
        of=of,
        n_flags=n_flags,
        n_decided=int(n_decided),
        n_inconclusive=sum(one.state == "inconclusive" for one in told),
        precision=_share(at_review, not_so),
        recall=_share(top, rest, same=False) if is_known else None,
        missed=float(np.sum(_estimate(rest))) if is_known else None,
        strata=tuple(
            StratumSeen(name=name, n=int(one.size.sum()), n_decided=int(one.n.sum()), n_confirmed=int(one.y.sum()))
            for name in dict.fromkeys(key[2] for key in keys)
            for one in [_joined([part for key, part in zip(keys, strata, strict=True) if key[2] == name])]
        ),
    )


def calibration_of(known: Known) -> tuple[CalibrationBin, ...]:
    """Bins of the score, with those in which somebody decided; accounts drawn stand for their stratum."""
    found = []
    edges = [*CALIBRATION_EDGES[:-1], np.inf]
    for low, high in pairwise(edges):
        told = [one for one in known.seen if low <= one.score < high and _tells(one)]
        if told:
            hits, others = _split(known, told)
            mean = float(np.mean([one.score for one in told]))
            found.append(
                CalibrationBin(low=low, high=min(high, 1.0), n_decided=len(told), mean_score=mean, abusive=_share(hits, others))
            )
    return tuple(found)


def thresholds_of(known: Known) -> tuple[ThresholdSeen, ...]:
    """What each score that somebody decided on would give as a threshold, the highest first; at most a hundred of them."""
    scores = np.unique([one.score for one in known.seen if _tells(one)])[::-1]
    if len(scores) > _MOST_THRESHOLDS:
        scores = scores[np.linspace(0, len(scores) - 1, _MOST_THRESHOLDS).astype(int)]
    return tuple(_at_threshold(known, float(threshold)) for threshold in scores)


def best_threshold(
    lines: Iterable[ThresholdSeen], *, precision: float | None = None, reviews: float | None = None
) -> ThresholdSeen | None:
    """The line with the highest recall at a precision of at least so much, and at most so many reviews; None: there is none."""
    fitting = [
        line
        for line in lines
        if (precision is None or (line.precision.value or 0.0) >= precision) and (reviews is None or line.reviews <= reviews)
    ]
    return max(fitting, key=lambda line: (line.recall.value or 0.0, line.threshold), default=None)


_MOST_THRESHOLDS: Final = 100


def _at_threshold(known: Known, threshold: float) -> ThresholdSeen:
    at = [one for one in known.seen if one.score >= threshold]
    precise = _split(known, [one for one in at if _tells(one)])
    everybody = [one for one in known.seen if _tells(one)]
    above = _of(known, everybody, [one for one in everybody if one.score >= threshold and one.state == "confirmed"])
    below = _of(known, everybody, [one for one in everybody if one.score < threshold and one.state == "confirmed"])
    weight = {key: known.sizes[key] / max(1, n) for key, n in _n_by(known.seen, known).items()}
    reviews = sum(weight.get(one.key, 0.0) for one in at) / max(1, known.n_as_ofs)
    recall = _share(above, below)
    if known.unseen():  # its bounds allow for whatever is there
        recall = recall.model_copy(update={"value": None})
    return ThresholdSeen(threshold=threshold, precision=_share(*precise), recall=recall, reviews=round(reviews, 2))


def _split(known: Known, told: Sequence[Seen]) -> tuple[Strata, Strata]:
    """Of accounts that tell something: the abusive ones, and the others."""
    everybody = [one for one in known.seen if _tells(one)]
    return (
        _of(known, everybody, [one for one in told if one.state == "confirmed"]),
        _of(known, everybody, [one for one in told if one.state == "cleared"]),
    )


def _of(known: Known, everybody: Sequence[Seen], chosen: Sequence[Seen]) -> Strata:
    """``chosen`` among all that were looked at, by model and stratum."""
    looked, found = _n_by(everybody, known), _n_by(chosen, known, blank=False)
    keys = [key for key in sorted(known.sizes) if known.sizes[key]]
    return Strata(
        np.array([found.get(key, 0) for key in keys], float),
        np.array([looked.get(key, 0) for key in keys], float),
        np.array([known.sizes[key] for key in keys], float),
    )


def _n_by(seen: Iterable[Seen], known: Known, *, blank: bool = True) -> dict[Key, int]:
    counted = dict(known.blank) if blank else {}
    for one in seen:
        counted[one.key] = counted.get(one.key, 0) + 1
    return counted


def _strata(known: Known, mine: Sequence[Seen], told: Sequence[Seen], key: Key) -> Strata:
    """(y, n, size) of one stratum, each of shape (1,)."""
    n_confirmed = _confirmed([one for one in told if one.key == key]).sum()
    n_decided = _decided([one for one in mine if one.key == key]).sum() + known.blank.get(key, 0)
    return Strata(*(np.array([value], float) for value in (n_confirmed, n_decided, known.sizes[key])))


def _joined(parts: Sequence[Strata]) -> Strata:
    if not parts:
        return Strata(*(np.zeros(0) for _ in range(3)))
    return Strata(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("y", "n", "size")))


def _share(hits: Strata, others: Strata, *, same: bool = True) -> Share:
    value, low, high = (float(part) for part in share(hits, others, same=same))
    return Share(value=None if np.isnan(value) else value, low=low, high=high)


def _estimate(strata: Strata) -> Floats:
    """Accounts of each stratum: N·y/n; nothing where nobody was looked at."""
    found: Floats = strata.size * strata.y / np.maximum(strata.n, 1)
    return found


def _bound(hits: Strata, others: Strata, rng: np.random.Generator, *, same: bool, upper: bool) -> Floats:
    a, b = _drawn(hits, rng, above=upper), _drawn(others, rng, above=not upper)
    if same:  # the least of one with the most of the other, stratum by stratum
        order = rng.random(a.shape).argsort(axis=0)
        a = np.take_along_axis(np.sort(a, axis=0), order, axis=0)
        b = np.take_along_axis(-np.sort(-b, axis=0), order, axis=0)
    a, b = a.sum(axis=-1), b.sum(axis=-1)
    found: Floats = np.quantile(a / (a + b), (1 + LEVEL) / 2 if upper else (1 - LEVEL) / 2, axis=0)
    return found


def _drawn(strata: Strata, rng: np.random.Generator, *, above: bool) -> Floats:
    """Accounts of each stratum, drawn from the distributions that bound them from above or below: (DRAWS, …, strata)."""
    y, n = strata.y, strata.n
    a, b = (y + 1, n - y) if above else (y, n - y + 1)
    rates = rng.beta(np.maximum(a, 1e-12), np.maximum(b, 1e-12), (DRAWS, *y.shape))
    rates = np.where(a <= 0, 0.0, np.where(b <= 0, 1.0, rates))
    found: Floats = np.clip(strata.size * rates, y, y + np.maximum(strata.size - n, 0))
    return found


def _tells(one: Seen) -> bool:
    return one.state in {"confirmed", "cleared"}


def _decided(seen: Sequence[Seen]) -> npt.NDArray[np.bool_]:
    return np.array([_tells(one) for one in seen], np.bool_)


def _confirmed(seen: Sequence[Seen]) -> npt.NDArray[np.bool_]:
    return np.array([one.state == "confirmed" for one in seen], np.bool_)
