"""Error budgets, class by class: what is beyond them, and what a person's approval covers."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.digest import KeyDigest
from batchscore.report.limits import CLASSES, beyond, not_approved
from batchscore.report.proof import AsOfProof
from batchscore.spec import ErrorLimits

COUNTS = st.integers(0, 200)


def proof(*, scored: int = 0, **set_aside: int) -> AsOfProof:
    counts = {"scored": scored, "rejected": 0, "unscoreable": 0, "quarantined": 0} | set_aside
    keys = {name: str(KeyDigest(n, 1, 1)) for name, n in counts.items()}
    planned = str(KeyDigest(sum(counts.values()), 1, 1))
    empty = str(KeyDigest())
    return AsOfProof(as_of=datetime(2026, 1, 15, tzinfo=UTC), planned=planned, outside=empty, lost=empty, closes=True, **keys)


def test_a_finding_says_the_class_how_many_and_how_many_were_allowed() -> None:
    (found,) = beyond(proof(scored=980, rejected=11, unscoreable=9), ErrorLimits(rejected=0.01, unscoreable=0.01))
    assert (found.of, found.day, found.n, found.low, found.high) == ("rejected", date(2026, 1, 15), 11, 0, 10)
    assert "1.0000% of 1,000 planned accounts" in found.what


def test_no_budget_at_all_is_told_of_the_first_account_and_what_is_not_limited_never() -> None:
    assert [one.of for one in beyond(proof(scored=1, quarantined=1, rejected=5), ErrorLimits(quarantined=0))] == ["quarantined"]
    assert beyond(proof(rejected=5), ErrorLimits()) == ()
    assert beyond(proof(), ErrorLimits(rejected=0, unscoreable=0, quarantined=0)) == ()


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from(CLASSES), st.floats(0, 1))
def test_a_class_is_found_exactly_when_its_share_is_exceeded(
    a: int, b: int, c: int, scored: int, name: str, share: float
) -> None:
    counts = dict(zip(CLASSES, (a, b, c), strict=True))
    found = beyond(proof(scored=scored, **counts), ErrorLimits.model_validate({name: share}))
    assert [one.of for one in found] == ([name] if counts[name] > share * (a + b + c + scored) else [])


@pytest.mark.parametrize(("n", "left"), [(10, 0), (11, 0), (12, 1)])
def test_an_approval_covers_as_many_as_were_seen_and_no_more(n: int, left: int) -> None:
    limits = ErrorLimits(rejected=0)
    (seen,) = beyond(proof(scored=100, rejected=11), limits)
    assert len(not_approved(beyond(proof(scored=100, rejected=n), limits), [seen])) == left
