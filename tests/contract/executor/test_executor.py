"""The behaviour of every executor. One suite, run over all of them; what only a cluster can do is in test_dask_executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchscore.executors.connect import local_cluster
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.guarded import Attempt
from batchscore.executors.inline import InlineExecutor
from batchscore.plan import Task
from batchscore.ports import Executor
from batchscore.receipt import Failed, Finished, Postponed, Stalled, Suspected
from tests import fake_attempts as fakes

MakeExecutor = Callable[[Attempt], Executor]


class Tasks:
    """A worklist over a list."""

    def __init__(self, *tasks: Task) -> None:
        self.tasks = deque(tasks)
        self.handed_out = 0

    def next(self) -> Task | None:
        if not self.tasks:
            return None
        self.handed_out += 1
        return self.tasks.popleft()


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskExecutor]:
    with local_cluster(fakes.succeed, n_workers=2) as executor:
        yield executor


@pytest.fixture(params=["inline", "dask"])
def make_executor(request: pytest.FixtureRequest) -> MakeExecutor:
    def make(attempt: Attempt) -> Executor:
        if request.param == "inline":
            return InlineExecutor(attempt)
        cluster: DaskExecutor = request.getfixturevalue("cluster")
        return cluster.with_attempt(attempt)

    return make


def drain(executor: Executor, tasks: Tasks) -> list[Finished | Failed | Suspected | Postponed]:
    return [outcome for batch in executor.outcomes(tasks) for outcome in batch if not isinstance(outcome, Stalled)]


def test_every_task_has_exactly_one_outcome(make_executor: MakeExecutor, tmp_path: Path) -> None:
    outcomes = drain(make_executor(fakes.succeed), Tasks(*(fakes.make_task(tmp_path, number) for number in range(40))))
    assert sorted(outcome.task.partition.number for outcome in outcomes) == list(range(40))
    assert all(isinstance(outcome, Finished) for outcome in outcomes)


def test_an_empty_worklist_has_no_outcome(make_executor: MakeExecutor) -> None:
    assert drain(make_executor(fakes.succeed), Tasks()) == []


def test_a_failure_is_a_value_and_says_whether_another_attempt_can_help(make_executor: MakeExecutor, tmp_path: Path) -> None:
    outcomes = drain(make_executor(fakes.fail_by_number), Tasks(*(fakes.make_task(tmp_path, number) for number in range(5))))
    failed = {outcome.task.partition.number: outcome for outcome in outcomes if isinstance(outcome, Failed)}
    assert set(failed) == {1, 2, 3, 4}
    assert (failed[1].reason, failed[1].final, failed[1].stops_run) == ("input_corrupt", True, False)
    assert (failed[2].reason, failed[2].final, failed[2].stops_run) == ("duplicate_id", False, True)
    assert (failed[3].reason, failed[3].final, failed[3].stops_run) == ("write_failed", False, False)
    assert (failed[4].reason, failed[4].final, failed[4].stops_run) == ("attempt_failed", False, False)


def test_the_text_of_a_foreign_exception_never_travels(make_executor: MakeExecutor, tmp_path: Path) -> None:
    (outcome,) = drain(make_executor(fakes.fail_by_number), Tasks(fakes.make_task(tmp_path, 4)))
    assert "anna" not in outcome.model_dump_json()
    assert isinstance(outcome, Failed)
    assert "ValueError" in outcome.message


def test_a_task_put_back_while_outcomes_are_heard_is_done_too(make_executor: MakeExecutor, tmp_path: Path) -> None:
    tasks = Tasks(fakes.make_task(tmp_path, 0), fakes.make_task(tmp_path, 3))
    seen = []
    for batch in make_executor(fakes.fail_by_number).outcomes(tasks):
        for outcome in batch:
            assert not isinstance(outcome, Stalled)
            seen.append(outcome.task.partition.number)
            if isinstance(outcome, Failed) and seen.count(3) < 3:
                tasks.tasks.append(outcome.task)
    assert sorted(seen) == [0, 3, 3, 3]


def test_a_worklist_that_stops_handing_out_ends_the_outcomes_after_what_is_in_flight(
    make_executor: MakeExecutor, tmp_path: Path
) -> None:
    tasks = Tasks(*(fakes.make_task(tmp_path, number) for number in range(100)))
    n_outcomes = 0
    for batch in make_executor(fakes.succeed).outcomes(tasks):
        n_outcomes += len(batch)
        if n_outcomes >= 5:
            tasks.tasks.clear()
    assert n_outcomes == tasks.handed_out < 100


def test_an_executor_says_in_one_line_what_it_is(make_executor: MakeExecutor) -> None:
    assert "\n" not in make_executor(fakes.succeed).describe()
