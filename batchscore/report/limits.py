"""Error budgets: of the accounts planned for an as-of, how many may be set aside before a person must look. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from batchscore.digest import KeyDigest
from batchscore.hold import Finding
from batchscore.report.proof import AsOfProof
from batchscore.spec import ErrorLimits

CLASSES: Final = ("rejected", "unscoreable", "quarantined")


def beyond(proof: AsOfProof, limits: ErrorLimits) -> tuple[Finding, ...]:
    """A finding for each class of which more was set aside at that as-of than its share of the planned accounts allows."""
    planned = KeyDigest.parse(proof.planned).n
    found = []
    for name in CLASSES:
        share: float | None = getattr(limits, name)
        n = KeyDigest.parse(getattr(proof, name)).n
        if share is None or n <= share * planned:
            continue
        verdict = f"more than {share:.4%} of {planned:,} planned accounts"
        found.append(Finding(of=name, day=proof.as_of.date(), n=n, low=0, high=int(share * planned), verdict=verdict))
    return tuple(found)


def not_approved(findings: Iterable[Finding], approved: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that no person approved of this run, or of which there are more by now than was approved."""
    allowed: dict[tuple[str, object], int] = {}
    for one in approved:
        allowed[one.of, one.day] = max(one.n, allowed.get((one.of, one.day), 0))
    return tuple(one for one in findings if one.n > allowed.get((one.of, one.day), -1))
