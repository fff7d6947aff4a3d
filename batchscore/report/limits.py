"""Error budgets: of the accounts planned for an as-of, how many may be set aside before a person must look. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Final

from batchscore.digest import KeyDigest
from batchscore.hold import Finding
from batchscore.report.proof import AsOfProof
from batchscore.spec import ErrorLimits, SegmentLimits
from batchscore.values import Value

CLASSES: Final = ("rejected", "unscoreable", "quarantined")
PLANNED: Final = "planned"
SMALL: Final = "small segments together"
SegmentCounts = Mapping[str, Mapping[str, int]]  # segment → `PLANNED` or class → accounts


class Budget(Value):
    """How a class stands: ``n`` accounts set aside, and how many the ``share`` of all, or ``by_segment`` of each, allows."""

    of: str
    n: int
    share: float | None
    allowed: int | None
    by_segment: float | None = None


def beyond(proof: AsOfProof, limits: ErrorLimits) -> tuple[Finding, ...]:
    """A finding for each class of which more was set aside at that as-of than its share of the planned accounts allows."""
    planned = KeyDigest.parse(proof.planned).n
    counts = {name: KeyDigest.parse(getattr(proof, name)).n for name in CLASSES}
    return tuple(_beyond(counts, planned, limits, proof.as_of.date(), ""))


def beyond_in_segments(counts: SegmentCounts, limits: SegmentLimits, day: date) -> tuple[Finding, ...]:
    """The same of each segment's planned accounts, by name of the segment; those of few accounts as one."""
    large = {segment: held for segment, held in counts.items() if held.get(PLANNED, 0) >= limits.at_least}
    small: Counter[str] = Counter()
    for segment, held in counts.items():
        if segment not in large:
            small.update(held)
    found = [
        finding
        for segment, held in sorted(large.items())
        for finding in _beyond(held, held[PLANNED], limits, day, f" in segment {segment}")
    ]
    return (*found, *_beyond(small, small[PLANNED], limits, day, f" in {SMALL}"))


def budgets(proof: AsOfProof, limits: ErrorLimits) -> tuple[Budget, ...]:
    """How each limited class stands, for a report."""
    planned = KeyDigest.parse(proof.planned).n
    each = limits.by_segment
    return tuple(
        Budget(
            of=name,
            n=KeyDigest.parse(getattr(proof, name)).n,
            share=share,
            allowed=None if share is None else int(share * planned),
            by_segment=None if each is None else getattr(each, name),
        )
        for name in CLASSES
        for share in [_share(limits, name)]
        if share is not None or (each is not None and getattr(each, name) is not None)
    )


def not_approved(findings: Iterable[Finding], approved: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that no person approved of this run, or of which there are more by now than was approved."""
    allowed: dict[tuple[str, object], int] = {}
    for one in approved:
        allowed[one.of, one.day] = max(one.n, allowed.get((one.of, one.day), 0))
    return tuple(one for one in findings if one.n > allowed.get((one.of, one.day), -1))


def _beyond(
    counts: Mapping[str, int], planned: int, limits: ErrorLimits | SegmentLimits, day: date, where: str
) -> Iterator[Finding]:
    for name in CLASSES:
        share, n = _share(limits, name), counts.get(name, 0)
        if share is not None and n > share * planned:
            what = f"more than {share:.4%} of {planned:,} planned accounts"
            yield Finding(of=f"{name}{where}", day=day, n=n, low=0, high=int(share * planned), what=what)


def _share(limits: ErrorLimits | SegmentLimits, name: str) -> float | None:
    share: float | None = getattr(limits, name)
    return share
