"""Estimates from decisions: what they are, and that their intervals cover the truth of simulated worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from batchscore.report import quality as estimates
from batchscore.report.quality import (
    TOP,
    Known,
    Seen,
    Strata,
    best_threshold,
    calibration_of,
    quality_of,
    share,
    thresholds_of,
)

N_WORLDS = 1_000


def seen(
    n: int, confirmed: int, stratum: str = TOP, score: float = 0.9, *, undecided: int = 0, segment: str = "de"
) -> list[Seen]:
    states = ["confirmed"] * confirmed + ["cleared"] * (n - confirmed) + ["undecided"] * undecided
    return [Seen(score=score, state=state, stratum=stratum, segment=segment, model="m") for state in states]


def known(*parts: list[Seen], sizes: dict[str, int], blank: dict[str, int] | None = None) -> Known:
    every = [one for part in parts for one in part]
    held = {("", "m", name): n for name, n in sizes.items()}
    return Known(seen=every, sizes=held, blank={("", "m", name): n for name, n in (blank or {}).items()}, n_as_ofs=1)


def test_strata_of_runs_that_drew_with_other_probabilities_are_estimated_each_by_itself() -> None:
    drawn = [replace(one, run=run) for run, n, y in (("r-1", 10, 5), ("r-2", 100, 0)) for one in seen(n, y, "low", 0.1)]
    sizes = {("", "m", TOP): 10, ("r-1", "m", "low"): 1_000, ("r-2", "m", "low"): 1_000}
    found = quality_of(Known(seen=[*seen(10, 10), *drawn], sizes=sizes, blank={}, n_as_ofs=2))
    assert found.missed == pytest.approx(500)
    assert [(one.name, one.n, one.n_decided) for one in found.strata] == [(TOP, 10, 10), ("low", 2_000, 110)]


def test_nothing_is_said_of_what_was_missed_where_nobody_looked() -> None:
    parts = seen(10, 10), seen(5, 1, "low", 0.1), seen(0, 0, "high", 0.6, undecided=3)
    whole = known(*parts, sizes={TOP: 10, "low": 100, "high": 50})
    found = quality_of(whole)
    assert (found.recall, found.missed) == (None, None)
    assert whole.unseen() == [("", "m", "high")]
    assert {line.recall.value for line in thresholds_of(whole)} == {None}


def test_recall_counts_what_the_sample_stands_for() -> None:
    found = quality_of(known(seen(100, 80), seen(20, 2, "0–0.5", 0.1), sizes={TOP: 100, "0–0.5": 1_000}))
    assert (found.n_flags, found.n_decided) == (100, 100)
    assert found.precision.value == pytest.approx(0.8)
    assert found.missed == pytest.approx(100)
    assert found.recall is not None
    assert found.recall.value == pytest.approx(80 / 180)
    assert found.recall.low < 80 / 180 < found.recall.high


def test_who_was_drawn_and_withheld_was_looked_at_and_is_out_of_question() -> None:
    found = quality_of(known(seen(100, 80), seen(15, 2, "0–0.5", 0.1), sizes={TOP: 100, "0–0.5": 1_000}, blank={"0–0.5": 5}))
    assert found.missed == pytest.approx(100)


def test_without_a_sample_there_is_no_recall_and_the_precision_is_of_what_was_decided() -> None:
    found = quality_of(known(seen(50, 40, undecided=50), sizes={TOP: 100}))
    assert (found.recall, found.missed) == (None, None)
    assert (found.n_flags, found.n_decided) == (100, 50)
    assert found.precision.value == pytest.approx(0.8)
    assert 0.65 < found.precision.low < 0.68, "Clopper-Pearson of 40 in 50: 0.663 … 0.900"
    assert 0.88 < found.precision.high < 0.92


def test_a_segment_has_its_part_of_what_was_missed() -> None:
    parts = [
        seen(60, 50, segment="de"),
        seen(40, 30, segment="fr"),
        seen(10, 2, "low", 0.1, segment="fr"),
        seen(10, 0, "low", 0.1),
    ]
    whole = known(*parts, sizes={TOP: 100, "low": 1_000})
    de, fr = quality_of(whole, segment="de"), quality_of(whole, segment="fr")
    assert de.missed == pytest.approx(0)
    assert fr.missed == pytest.approx(100)
    assert fr.recall is not None
    assert fr.recall.value == pytest.approx(30 / 130)


def test_calibration_and_thresholds_weigh_the_sample_by_what_it_stands_for() -> None:
    whole = known(seen(50, 45, score=0.95), seen(50, 25, score=0.6), seen(10, 1, "low", 0.2), sizes={TOP: 100, "low": 1_000})
    bins = {part.low: part for part in calibration_of(whole)}
    assert bins[0.95].abusive.value == pytest.approx(0.9)
    assert bins[0.1].abusive.value == pytest.approx(0.1)
    lines = {line.threshold: line for line in thresholds_of(whole)}
    assert [line.reviews for line in lines.values()] == [50, 100, 1_100]
    assert lines[0.95].precision.value == pytest.approx(0.9)
    assert lines[0.6].recall.value == pytest.approx(70 / 170)
    assert lines[0.2].recall.value == pytest.approx(1)
    assert best_threshold(lines.values(), precision=0.65) == lines[0.6]
    assert best_threshold(lines.values(), reviews=60) == lines[0.95]
    assert best_threshold(lines.values(), precision=0.95) is None


def test_the_interval_of_recall_covers_the_truth_of_a_thousand_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds of many sizes and rates, some with abuse too rare for any sample to meet; sampled without replacement."""
    monkeypatch.setattr(estimates, "DRAWS", 500)
    rng = np.random.default_rng(11)
    ranges = ((100, 600), (200, 2_000), (2_000, 20_000), (20_000, 10**6))
    sizes = np.stack([rng.integers(low, high, N_WORLDS) for low, high in ranges], -1)
    rates = np.stack([rng.beta(a, b, N_WORLDS) for a, b in ((6, 3), (2, 6), (1, 30), (0.5, 400))], -1)
    abusive = rng.binomial(sizes, rates)
    draws = [rng.integers(low, high, N_WORLDS) for low, high in ((2, 20), (5, 40), (20, 400))]
    drawn = np.stack([sizes[:, 0] - rng.integers(0, 50, N_WORLDS), *draws], -1)
    found = rng.hypergeometric(abusive, sizes - abusive, drawn)
    top, below = (Strata(*(part[:, at].astype(float) for part in (found, drawn, sizes))) for at in (slice(0, 1), slice(1, 4)))
    value, low, high = share(top, below)
    truth = abusive[:, 0] / abusive.sum(1)
    covered = (low <= truth) & (truth <= high)
    assert covered.mean() >= 0.93
    assert ((low <= value) & (value <= high)).all()
    assert np.mean(high - low) < 0.75, "it covers because it is right, and not because it says nothing"
    missed = (sizes[:, 1:] * found[:, 1:] / drawn[:, 1:]).sum(1)
    error = np.std(missed - abusive[:, 1:].sum(1)) / np.sqrt(N_WORLDS)
    assert abs(np.mean(missed - abusive[:, 1:].sum(1))) < 3 * error, "unbiased"
