"""The guard before a release: what is unlike the last runs is told, what is like them is not."""

from __future__ import annotations

from batchscore.decide.guard import Missing, Profile, ScoreDrift, judge, not_seen, profile_of
from batchscore.policy import Guard

GUARD = Guard(factor=3, least=20, most=5_000, psi=0.25, missing=0.1)


def profile(n: int = 300, above: int | None = 400, **domains: int) -> Profile:
    return Profile(
        n_flags=n, n_above=above, parts={"reason": {"rcpt": n}, "domain": domains or {"a.example": 200, "b.example": 40}}
    )


def told(mine: Profile, *earlier: Profile, guard: Guard = GUARD, budget: int | None = 500) -> list[str]:
    return [str(finding.problem()) for finding in judge(mine, earlier, guard, budget=budget)]


def test_a_run_like_the_last_ones_passes() -> None:
    assert told(profile(), profile(), profile(280), profile(900, 900)) == []


def test_a_model_that_flags_forty_times_the_usual_is_told_also_behind_a_budget() -> None:
    assert told(profile(12_000, 12_000), profile(), profile()) == [
        "flags: more than usual: 12,000, usual 100 … 900",
        "flags: more than may be released: 12,000, usual 0 … 5,000",
        "scores above the threshold: more than usual: 12,000, usual 133 … 1,200",
        "flags for rcpt: more than usual: 12,000, usual 100 … 900",
    ]
    assert told(profile(300, 16_000), profile(), profile()) == [
        "scores above the threshold: more than usual: 16,000, usual 133 … 1,200"
    ]


def test_before_there_is_an_earlier_run_the_budget_is_what_to_expect() -> None:
    assert told(profile(300, 1_400)) == []
    assert told(profile(300, 20_000)) == ["scores above the threshold: more than usual: 20,000, usual 0 … 1,500"]
    assert told(profile(300, 20_000), budget=None) == []


def test_a_domain_that_vanishes_or_floods_is_told_and_a_small_one_is_not() -> None:
    assert told(profile(**{"a.example": 240}), profile()) == ["flags of domain b.example: fewer than usual: 0, usual 13 … 120"]
    assert told(profile(**{"a.example": 200, "b.example": 40, "c.example": 60}), profile()) == [
        "flags of domain c.example: more than usual: 60, usual 0 … 20"
    ]
    assert told(profile(**{"a.example": 200, "b.example": 40, "c.example": 19}), profile()) == []


def test_one_odd_run_among_the_last_is_no_new_normal() -> None:
    assert told(profile(12_000, 12_000), profile(), profile(11_000, 11_000), profile()) != []


def test_drift_is_told_in_reviews_a_day_and_missing_features_by_their_partitions() -> None:
    drifts = [ScoreDrift(against="r-1", psi=0.4, more_a_day=120), ScoreDrift(against="r-2", psi=0.2, more_a_day=9)]
    missing = [Missing(feature="mails_7d", n=3, n_partitions=20), Missing(feature="age", n=2, n_partitions=20)]
    found = judge(profile(), [profile()], GUARD, budget=500, drifts=drifts, missing=missing)
    assert [str(finding.problem()) for finding in found] == [
        "scores against r-1, PSI in thousandths: scores drifted, 120 more reviews a day: 400, usual 0 … 250",
        "partitions of 20 in which mails_7d is missing: missing more often than when the bundle was packed: 3, usual 0 … 2",
    ]
    assert judge(profile(), [profile()], Guard(), budget=500, drifts=drifts, missing=missing) == ()


def test_what_was_approved_passes_as_it_was_seen_and_no_other() -> None:
    (seen,) = judge(profile(300, 16_000), [profile()], GUARD, budget=500)
    (worse,) = judge(profile(300, 17_000), [profile()], GUARD, budget=500)
    assert not_seen([seen], [seen]) == ()
    assert not_seen([worse], [seen]) == (worse,)


def test_the_sample_is_no_part_of_a_profile() -> None:
    rows = [
        {"account_id": 1, "segment": "de", "domain": None, "stratum": None},
        {"account_id": 2, "segment": "de", "domain": "a.example", "stratum": "0–0.01"},
    ]
    made = profile_of(rows, {1: "rcpt", 2: "html"}, 7)
    assert (made.n_flags, made.n_above) == (1, 7)
    assert made.parts == {"reason": {"rcpt": 1}, "segment": {"de": 1}, "domain": {}}
