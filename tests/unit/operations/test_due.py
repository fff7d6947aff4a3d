"""What a sweep owes: no gap and no overlap, however late or often it is run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.digest import KeyDigest
from batchscore.errors import Refused
from batchscore.operations.sweep import due, latest_whole, say_staleness, staleness
from batchscore.ports import SweepRow
from batchscore.report.proof import AsOfProof

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def sweep(day: int, state: str = "finished", run: int = 1) -> SweepRow:
    return SweepRow(as_of=START + day * DAY, plan_digest=f"{day}", run_id=f"r-{day}-{run}", state=state, released_at=None)


def proof_with(n_rejected: int) -> AsOfProof:
    nobody = str(KeyDigest())
    left_out = str(KeyDigest(n=n_rejected))
    return AsOfProof(
        as_of=START, planned=nobody, outside=nobody, scored=nobody, unscoreable=nobody, rejected=left_out, quarantined=nobody,
        lost=nobody, closes=True,
    )  # fmt: skip


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(1, 3))
def test_what_was_swept_and_what_was_missed_is_every_as_of_once(days: list[int], every: int) -> None:
    """Sweeps at any days, repeated and late; after each, swept and missed together leave no as-of out and name none twice."""
    sweeps: list[SweepRow] = []
    told: list[datetime] = []
    for day in days:
        as_of = START + day * every * DAY
        try:
            found = due("world", sweeps, as_of, every * DAY)
        except Refused as refusal:
            assert refusal.reason == "as_of_behind"
            continue
        if found.standing is None:
            told += [*found.missed, as_of]
            sweeps.append(sweep(day * every))
    assert told == [told[0] + number * every * DAY for number in range(len(told))]


def test_the_first_sweep_of_a_spec_has_missed_nothing() -> None:
    found = due("world", [], START, DAY)
    assert (found.watermark, found.missed, found.standing) == (None, (), None)


def test_a_sweep_that_did_not_finish_moves_no_watermark() -> None:
    found = due("world", [sweep(1), sweep(2, "interrupted")], START + 3 * DAY, DAY)
    assert found.watermark == START + DAY
    assert found.missed == (START + 2 * DAY,)


def test_an_as_of_stays_swept_while_it_is_reprocessed() -> None:
    found = due("world", [sweep(1), sweep(1, "running", run=2)], START + DAY, DAY)
    assert found.watermark == START + DAY
    assert found.standing == "r-1-1"


def test_a_past_as_of_is_never_swept_over_a_newer_one() -> None:
    with pytest.raises(Refused, match="as_of_behind"):
        due("world", [sweep(5)], START + 4 * DAY, DAY)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_the_latest_whole_day_is_over_and_the_next_is_not(moment: datetime) -> None:
    latest = latest_whole(moment, DAY)
    assert latest <= moment < latest + DAY
    assert latest.time() == datetime.min.time()


def test_the_bound_is_the_longest_time_between_two_sweeps() -> None:
    bound = staleness([sweep(1), sweep(2), sweep(9), sweep(10)], lambda _run: proof_with(0))
    assert bound is not None
    assert timedelta(seconds=bound.at_least_every_s) == 7 * DAY
    assert "at least every 7d" in say_staleness(bound)
    assert "stalest score is as of 2026-01-11" in say_staleness(bound)


def test_an_account_left_out_is_as_stale_as_the_last_sweep_that_scored_all() -> None:
    left_out = {"r-9-1": 3, "r-10-1": 5}
    bound = staleness([sweep(1), sweep(2), sweep(9), sweep(10)], lambda run: proof_with(left_out.get(run, 0)))
    assert bound is not None
    assert (bound.n_left_out, bound.all_scored) == (5, START + 2 * DAY)
    assert "5 account(s) without a score as of 2026-01-11, last scored as of 2026-01-03 or later" in say_staleness(bound)


def test_without_a_finished_sweep_there_is_no_bound() -> None:
    assert staleness([sweep(1, "failed")], lambda _run: proof_with(0)) is None
