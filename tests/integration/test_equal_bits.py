"""Whole runs on a small world have the same bits however they are cut, and whoever makes them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchscore.attempt import attempt, explaining
from batchscore.events import PartitionAlerted
from batchscore.executors.connect import local_cluster
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.guarded import Attempt, attempted
from batchscore.executors.inline import InlineExecutor
from batchscore.keys import IdKind
from batchscore.models import compiled_explainer
from batchscore.models.attribution_kernel import contributions
from batchscore.models.compiled_explainer import CompiledExplainer
from batchscore.models.contract import Matrix
from batchscore.models.loading import load_scorer
from batchscore.models.scorer import Scorer
from batchscore.plan import Stage, Task
from batchscore.ports import RunRow, Worklist
from batchscore.receipt import Outcome, Receipt
from batchscore.store import open_reader
from tests.small_world import SmallWorld, make_small_world
from tests.whole_runs import Heard, digest_of, walk


class ShuffledExecutor:
    """Inline, but in an order of its own: takes everything first, then works it off at random."""

    def __init__(self, attempt: Attempt, seed: int) -> None:
        self._attempt = attempt
        self._chance = random.Random(seed)

    def describe(self) -> str:
        return "shuffled"

    def waiting(self) -> str:
        return ""

    def outcomes(self, worklist: Worklist) -> Iterator[Sequence[Outcome]]:
        waiting: deque[Task] = deque()
        while True:
            while (task := worklist.next()) is not None:
                waiting.append(task)
            if not waiting:
                return
            self._chance.shuffle(waiting)
            yield [attempted(self._attempt, waiting.popleft())]


@pytest.fixture(scope="module")
def two_workers() -> Iterator[DaskExecutor]:
    with local_cluster(attempt, n_workers=2) as executor:
        yield executor


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_scores_and_flags_are_bit_equal_for_any_partition_size_and_order(tmp_path: Path, kind: IdKind) -> None:
    world = make_small_world(tmp_path, kind=kind)
    whole = digest_of(world, walk(world, store="whole", partition_rows="1000000"))
    for number, rows in enumerate((1, 7, 50, 299)):
        shuffled = ShuffledExecutor(attempt, seed=number)
        assert digest_of(world, walk(world, shuffled, store=f"cut-{rows}", partition_rows=str(rows))) == whole


def test_scores_and_flags_are_bit_equal_inline_and_on_one_and_two_workers(world: SmallWorld, two_workers: DaskExecutor) -> None:
    inline = digest_of(world, walk(world, store="inline"))
    assert digest_of(world, walk(world, two_workers, store="two")) == inline
    with local_cluster(attempt, n_workers=1) as one_worker:
        assert digest_of(world, walk(world, one_worker, store="one")) == inline


def scorers_of(row: RunRow, stage: Stage = Stage.SCORE) -> set[str]:
    return {receipt.scorer for receipt in open_reader(Path(row.plan.spec.store)).receipts(row.run_id, stage)}


def test_scores_and_flags_are_bit_equal_by_the_compiled_scorer_and_by_xgboost(world: SmallWorld) -> None:
    compiled = walk(world, store="compiled")
    by_xgboost = walk(world, InlineExecutor(partial(attempt, route="xgboost")), store="xgboost")
    assert (scorers_of(compiled), scorers_of(by_xgboost)) == ({"compiled"}, {"xgboost"})
    assert digest_of(world, compiled) == digest_of(world, by_xgboost)


@pytest.mark.parametrize("lies", [False, True])
def test_reasons_are_equal_by_tables_and_by_xgboost_and_tables_that_lie_are_told(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch, lies: bool
) -> None:
    def lying(*given: Any) -> Matrix:
        return np.nextafter(contributions(*given), np.float32(np.inf))

    def ready(*given: Any, **asked: Any) -> Scorer:
        scorer = load_scorer(*given, **asked)
        assert isinstance(scorer, CompiledExplainer)
        assert scorer.certify()
        if lies:
            monkeypatch.setattr(compiled_explainer, "contributions", lying)
        return scorer

    by_xgboost = walk(world, InlineExecutor(partial(attempt, route="xgboost")), store="xgboost")
    monkeypatch.setattr(explaining, "load_scorer", ready)
    heard = Heard()
    by_tables = walk(world, store="tables", heard=heard)
    assert scorers_of(by_xgboost, Stage.REASONS) == {"xgboost"}
    assert scorers_of(by_tables, Stage.REASONS) == {"xgboost" if lies else "compiled"}
    assert {event.alert for event in heard if isinstance(event, PartitionAlerted)} == ({"scorer_differs"} if lies else set())
    assert digest_of(world, by_tables) == digest_of(world, by_xgboost)


def test_what_an_attempt_put_right_by_itself_is_told_and_changes_nothing(world: SmallWorld) -> None:
    def alerted(task: Task) -> Receipt:
        return attempt(task).model_copy(update={"alerts": ("scorer_differs",)} if task.partition.stage is Stage.SCORE else {})

    heard = Heard()
    row = walk(world, InlineExecutor(alerted), store="alerted", heard=heard)
    alerts = [event for event in heard if isinstance(event, PartitionAlerted)]
    assert {event.alert for event in alerts} == {"scorer_differs"}
    assert len(alerts) == len({event.number for event in alerts}) > 1
    assert digest_of(world, row) == digest_of(world, walk(world, store="quiet"))


def test_flags_of_many_score_partitions_are_explained_together_and_alike(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = walk(world, store="together", partition_rows="20")
    monkeypatch.setattr("batchscore.layout.explained.FLAGS_PER_PARTITION", 1)
    apart = walk(world, store="apart", partition_rows="20")
    n_together, n_apart = (
        len(open_reader(Path(row.plan.spec.store)).partitions(row.run_id, Stage.REASONS)) for row in (together, apart)
    )
    assert n_together < n_apart
    assert digest_of(world, together) == digest_of(world, apart)
