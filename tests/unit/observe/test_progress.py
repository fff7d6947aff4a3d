"""What a person reads of each event where there is no terminal: one line, with figures that never go back."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from batchscore import events
from batchscore.events import Event
from batchscore.observe import progress
from batchscore.observe.progress import ProgressObserver

RUN = "r-00000000-1"


def said(*told: Event, is_terminal: bool = False) -> list[str]:
    heard = io.StringIO()
    with ProgressObserver(Console(file=heard, force_terminal=is_terminal, width=60)) as observer:
        for event in told:
            observer(event)
    return heard.getvalue().splitlines()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (events.RunOpened(run_id=RUN, epoch=1, resumed=False), f"run {RUN} opened"),
        (events.RunOpened(run_id=RUN, epoch=3, resumed=True), f"run {RUN} resumed, epoch 3"),
        (
            events.PartitionAlerted(run_id=RUN, stage="score", number=3, alert="feature_nulls mails_7d"),
            "  score 3: a feature is missing more often than when its model was packed: mails_7d",
        ),
        (
            events.PartitionFailed(run_id=RUN, stage="score", number=2, reason="worker_lost", quarantined=False),
            "  score 2: worker_lost, will be tried again",
        ),
        (
            events.PartitionFailed(run_id=RUN, stage="score", number=2, reason="memory_limit", quarantined=True),
            "  score 2: memory_limit, quarantined",
        ),
        (events.Proven(run_id=RUN, closes=False, n_as_ofs=2), "   prove  2 as-of dates, DOES NOT CLOSE"),
        (events.ReleaseJudged(run_id=RUN, n_earlier=0, n_held=0), f"warning: {events.NOTHING_TO_COMPARE}"),
        (events.Released(run_id=RUN, n_flags=1_200, n_overtaken=0), " release  1,200 flags before the reviewers"),
        (
            events.Released(run_id=RUN, n_flags=19, n_overtaken=1, n_decided_kept=1),
            " release  19 flags before the reviewers; 1 left as a person decided",
        ),
        (
            events.Released(run_id=RUN, n_flags=2, n_overtaken=5, n_evidence=1, n_instead=1, n_suppressed=4),
            (
                " release  2 new flags; 5 are before the reviewers already, 1 of them with new evidence; "
                "1 beyond the budget, in the place of flags withdrawn since; 4 suppressed since"
            ),
        ),
        (events.Waiting(run_id=RUN, reason="replica crm_replica is 40 s behind"), "waiting: replica crm_replica is 40 s behind"),
        (events.Waiting(run_id=RUN, reason=""), "going on"),
        (events.Waiting(run_id=RUN, reason="pause table \x1b[2J holds a row"), "waiting: pause table \\x1b[2J holds a row"),
        (
            events.StallFound(run_id=RUN, seconds=600, found="score 7 has not ended", done="its worker was ended", story="s.txt"),
            "stalled: score 7 has not ended; its worker was ended; the cluster's story: s.txt",
        ),
        (
            events.DeadlineJudged(run_id=RUN, deadline="2026-01-15T06:00Z", expected="2026-01-15T07:30Z", late_s=5_400.0),
            "LATE: expected to be over at 2026-01-15T07:30Z, 90 min after its deadline of 2026-01-15T06:00Z",
        ),
        (
            events.DeadlineJudged(run_id=RUN, deadline="2026-01-15T06:00Z", expected="2026-01-15T05:30Z", late_s=0.0),
            "expected to be over at 2026-01-15T05:30Z, in time after all",
        ),
        (
            events.InputJudged(run_id=RUN, n_days=30, n_new=2, n_held=1, n_approved=0, warnings=()),
            "    gate  30 days of input judged; 1 not as usual, 2 too new to compare",
        ),
        (
            events.InputJudged(run_id=RUN, n_days=0, n_new=0, n_held=0, n_approved=0, warnings=("mails: no events",)),
            "warning: mails: no events",
        ),
        (events.Stopping(run_id=RUN), "stopping: what is in flight is finished and committed first"),
    ],
)
def test_an_event_is_told_in_one_line(event: Event, line: str) -> None:
    assert said(event) == [line]


def committed(number: int, *, stage: str = "score", n_rows: int = 100) -> Event:
    return events.PartitionCommitted(run_id=RUN, stage=stage, number=number, n_rows=n_rows, seconds=1.0)


STARTED = events.StageStarted(run_id=RUN, stage="score", n_partitions=4, n_rows=400, n_done=1, n_rows_done=100)
FINISHED = events.StageFinished(run_id=RUN, stage="score", n_quarantined=1, seconds=2.0)


def test_a_long_stage_is_told_of_now_and_then_by_what_this_driver_did(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    heard = io.StringIO()
    with ProgressObserver(Console(file=heard, force_terminal=False)) as observer:
        for now, event in [
            (0.0, STARTED),
            (progress.LINE_EVERY_S - 1, committed(1)),
            (20.0, committed(2)),
            (20.5, committed(9, stage="shadow")),
            (21.0, committed(3)),
            (22.0, FINISHED),
        ]:
            clock[0] = now
            observer(event)
    assert heard.getvalue().splitlines() == [
        "   score  1 of 4 partitions were done before",
        "   score  300 of 400 rows, 10 rows/s, ETA 10 s",
        "   score  400 rows in 2.0 s (150 rows/s), 1 quarantined",
    ], "what a shadow made beside it is told in its own stage"


def test_on_a_terminal_a_bar_shows_the_stage_and_lines_stay_above_it() -> None:
    shown = "\n".join(said(STARTED, committed(1), FINISHED, is_terminal=True))
    assert "score" in shown
    assert "rows/s" in shown
    assert "200 rows in 2.0 s" in shown
