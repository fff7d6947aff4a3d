"""The guard before the release: are these flags what the last runs of the spec let expect? Pure.

A run's *profile* counts its flags in all, by first reason, by segment and by domain, and the scores that reached its threshold:
a budget hides a model that would flag forty times as many, that count does not. *Usual* is the median over earlier runs; before
there is one, the budget. Drift of the scores, and of features that are missing, is told in reviews a day that it adds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from batchscore.hold import Finding
from batchscore.policy import Guard

MORE: Final = "more than usual"
FEWER: Final = "fewer than usual"
_KINDS: Final = {"reason": "flags for {}", "segment": "flags of segment {}", "domain": "flags of domain {}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What a run would put, or has put, before the reviewers. ``parts``: reason, segment, domain → value → flags."""

    n_flags: int
    n_above: int | None = None
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreDrift:
    """Scores of a run against other scores (``against``, in words). ``more_a_day``: reviews a day beyond theirs, at its line."""

    against: str
    psi: float
    more_a_day: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A feature that is missing more often than when its bundle was packed, in ``n`` of ``n_partitions``."""

    feature: str
    n: int
    n_partitions: int


def profile_of(flags: Iterable[Mapping[str, Any]], first_reasons: Mapping[Any, str], n_above: int | None) -> Profile:
    """Of flags as rows of a decision. ``first_reasons``: account → the code of its loudest reason towards abuse.

    What was drawn for the sample is left out: chance chose it, and no model.
    """
    chosen = [flag for flag in flags if flag["stratum"] is None]
    reasons = Counter(first_reasons[flag["account_id"]] for flag in chosen if flag["account_id"] in first_reasons)
    parts = {"reason": reasons}
    for name in ("segment", "domain"):
        parts[name] = Counter(flag[name] for flag in chosen if flag[name] is not None)
    return Profile(n_flags=len(chosen), n_above=n_above, parts=parts)


def judge(
    mine: Profile,
    earlier: Sequence[Profile],
    guard: Guard,
    *,
    budget: int | None,
    drifts: Iterable[ScoreDrift] = (),
    missing: Iterable[Missing] = (),
) -> tuple[Finding, ...]:
    """What a person must see before these flags are released.

    Args:
        mine: The run's.
        earlier: Of the last runs of the spec that released; may be none.
        guard: The limits.
        budget: The policy's: what to expect before there is an earlier run.
        drifts: Of the run's scores.
        missing: Features.
    """
    found = [*_of_count("flags", mine.n_flags, [one.n_flags for one in earlier], guard)]
    if guard.most is not None and mine.n_flags > guard.most:
        found.append(Finding(of="flags", n=mine.n_flags, low=0, high=guard.most, what="more than may be released"))
    above = [one.n_above for one in earlier if one.n_above is not None] or ([] if budget is None else [budget])
    if mine.n_above is not None:
        found += _of_count("scores above the threshold", mine.n_above, above, guard, fewer=len(earlier) > 0)
    for kind, words in _KINDS.items():
        values = set(mine.parts.get(kind, {})).union(*(one.parts.get(kind, {}) for one in earlier)) if earlier else set()
        for value in sorted(values):
            usual = [one.parts.get(kind, {}).get(value, 0) for one in earlier]
            found += _of_count(words.format(value), mine.parts.get(kind, {}).get(value, 0), usual, guard)
    for drift in drifts:
        if guard.psi is not None and drift.psi > guard.psi:
            what = f"scores drifted, {_more(drift.more_a_day)}"
            of = f"scores against {drift.against}, PSI in thousandths"
            found.append(Finding(of=of, n=round(drift.psi * 1000), low=0, high=int(guard.psi * 1000), what=what))
    for one in missing:
        if guard.missing is not None and one.n > guard.missing * one.n_partitions:
            high = math.floor(guard.missing * one.n_partitions)
            of = f"partitions of {one.n_partitions:,} in which {one.feature} is missing"
            found.append(Finding(of=of, n=one.n, low=0, high=high, what="missing more often than when the bundle was packed"))
    return tuple(found)


def not_seen(findings: Sequence[Finding], seen: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that nobody approved for this very run: flags are approved as they are, and not those of the next run."""
    approved = set(seen)
    return tuple(finding for finding in findings if finding not in approved)


def _of_count(of: str, n: int, usual: Sequence[int], guard: Guard, *, fewer: bool = True) -> Iterable[Finding]:
    if not usual:
        return
    centre = median(usual)
    low = math.floor(centre / guard.factor) if fewer and centre >= guard.least else 0
    high = max(guard.least, math.ceil(guard.factor * centre))
    if not low <= n <= high:
        yield Finding(of=of, n=n, low=low, high=high, what=MORE if n > high else FEWER)


def _more(n: int) -> str:
    return f"{n:,} more reviews a day" if n >= 0 else f"{-n:,} fewer reviews a day"
