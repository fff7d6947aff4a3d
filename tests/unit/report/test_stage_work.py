"""What receipts of a stage add up to: rows beside the plan's, seconds by part, the slowest, rejects by code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from batchscore.plan import Stage, StageEstimate
from batchscore.ports import StageRow
from batchscore.receipt import Receipt
from batchscore.report.work import MAX_SLOWEST, StageWork, slowest_of_all

START = datetime(2026, 1, 8, tzinfo=UTC)
PLANNED = StageEstimate(stage="score", does="scores", n_rows=100, n_partitions=2)


def receipt(number: int, *, seconds: float = 1.0, stage: Stage = Stage.SCORE, **counts: int) -> Receipt:
    named = {name.replace("_", " ", 1) if name.startswith("rejected") else name: n for name, n in counts.items()}
    return Receipt(
        stage=stage, number=number, address="a", attempt="a", outputs=(), counts=named, seconds={"read": seconds, "predict": 0.5}
    )


def test_rows_and_seconds_add_up_and_stand_beside_the_plan() -> None:
    work = StageWork(Stage.SCORE, [receipt(0, scores=40), receipt(1, scores=50, rejected_score_invalid=3)], frozenset())
    row = StageRow(
        stage=Stage.SCORE, n_partitions=3, n_committed=2, n_quarantined=1, n_rows=100, n_rows_committed=90,
        started_at=START, updated_at=START + timedelta(seconds=7), rows_per_s=None,
    )  # fmt: skip
    told = work.report(PLANNED, row)
    assert (told.rows_planned, told.rows_done, told.partitions_planned, told.n_partitions) == (100, 93, 2, 3)
    assert (told.n_committed, told.n_quarantined, told.seconds) == (2, 1, 7.0)
    assert told.attempt_s == {"read": 2.0, "predict": 1.0}


def test_a_freeze_counts_its_rejected_rows_once() -> None:
    work = StageWork(Stage.FREEZE, [receipt(0, stage=Stage.FREEZE, rows=10, rejected_null_id=2)], frozenset())
    assert work.rows == 10


def test_seconds_of_another_run_are_not_counted_as_this_one() -> None:
    work = StageWork(Stage.SCORE, [receipt(0, scores=1, seconds=100), receipt(1, scores=1)], {(Stage.SCORE, 0)})
    assert (work.n_reused, work.rows, work.attempt_s["read"]) == (1, 2, 1.0)
    assert [entry.number for entry in work.slowest()] == [1]


def test_before_its_layout_a_stage_has_a_plan_and_nothing_done() -> None:
    told = StageWork(Stage.SCORE, [], frozenset()).report(PLANNED, None)
    assert (told.rows_planned, told.rows_done, told.n_partitions, told.seconds) == (100, None, None, None)


def test_the_slowest_come_first_over_all_stages_and_only_a_few_are_kept() -> None:
    score = StageWork(Stage.SCORE, [receipt(number, seconds=number) for number in range(20)], frozenset())
    freeze = StageWork(Stage.FREEZE, [receipt(0, seconds=18.5, stage=Stage.FREEZE)], frozenset())
    slowest = slowest_of_all([freeze, score])
    assert [(entry.stage, entry.number) for entry in slowest[:3]] == [("score", 19), ("freeze", 0), ("score", 18)]
    assert len(slowest) == MAX_SLOWEST


def test_rejects_are_told_by_code_with_what_it_means() -> None:
    work = StageWork(
        Stage.ROLLUP,
        [receipt(0, stage=Stage.ROLLUP, events=5, rejected_null_id=2), receipt(1, stage=Stage.ROLLUP, rejected_null_id=1)],
        frozenset(),
    )
    assert [(reject.code, reject.n, reject.meaning) for reject in work.rejects()] == [("null_id", 3, "the account id is null")]
    assert work.rows == 8


def test_alerts_and_scorers_are_counted_by_partition() -> None:
    alerted = receipt(0, scores=1).model_copy(update={"alerts": ("scorer_differs",), "scorer": "compiled"})
    work = StageWork(Stage.SCORE, [alerted, receipt(1, scores=1).model_copy(update={"scorer": "compiled"})], frozenset())
    assert work.scorers == {"compiled": 2}
    assert [(alert.code, alert.n_partitions, bool(alert.meaning)) for alert in work.alerts()] == [("scorer_differs", 1, True)]
