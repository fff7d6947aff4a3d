"""Nothing hangs silently: what does not move within the stall limit is told with the cluster's story, given up and done again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

from batchscore.errors import Interrupted, Refused
from batchscore.executors.connect import given_client, local_cluster, remote_cluster
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.guarded import Attempt
from batchscore.executors.inline import InlineExecutor
from batchscore.plan import Task
from batchscore.ports import Executor
from batchscore.receipt import Failed, Finished, Outcome, Postponed, Receipt, Stalled, Suspected
from tests import fake_attempts as fakes
from tests.acceptance.real_cluster import RealCluster
from tests.contract.executor.test_executor import Tasks

STALL_S = 3.0
BEGAN: list[float] = []  # when outcomes were begun to be heard


def timed(executor: Executor, tasks: Tasks) -> Iterator[tuple[float, Outcome]]:
    """Outcomes and when they came; what was suspected, postponed or failed is handed out again, as the pipeline does."""
    began = time.monotonic()
    BEGAN.append(time.time())
    for batch in executor.outcomes(tasks):
        for outcome in batch:
            yield time.monotonic() - began, outcome
            if (isinstance(outcome, Suspected) and not outcome.running) or isinstance(outcome, Postponed):
                tasks.tasks.append(outcome.task)


def numbers(outcomes: list[Outcome], kind: type[Finished | Suspected | Failed]) -> list[int]:
    return sorted(outcome.task.partition.number for outcome in outcomes if isinstance(outcome, kind))


def told(seen: list[tuple[float, Outcome]], hung: Path | None = None, limit_s: float = STALL_S) -> Stalled:
    """The first stall; told within twice the limit of when the file ``hung`` was made, else of the beginning.

    Not before the limit is over since the beginning: the driver may hear that an attempt begins before the attempt itself comes
    to make that file.

    A loaded machine may take longer than these few seconds to start another worker, and then there is a second.
    """
    came, stalled = next((at, outcome) for at, outcome in seen if isinstance(outcome, Stalled))
    at = came if hung is None else came - (hung.stat().st_mtime - BEGAN[-1])
    print(f"stall limit {limit_s} s: reported after {at:.1f} s: {stalled.found}; {stalled.done}")  # noqa: T201 (the figure)
    assert limit_s <= came
    assert at <= 2 * limit_s
    return stalled


def ready(executor: DaskExecutor, tmp_path: Path) -> DaskExecutor:
    """The workers have imported what they need: a loaded machine takes seconds for that."""
    warm = executor.with_attempt(fakes.succeed)
    list(timed(warm, Tasks(*(fakes.make_task(tmp_path, number) for number in range(8)))))
    return executor


def test_who_works_beside_an_attempt_that_hangs_while_it_settles_is_not_suspected_when_their_worker_is_ended(
    tmp_path: Path,
) -> None:
    with local_cluster(fakes.hang_settling_beside_another, n_workers=1, stall_s=STALL_S) as executor:
        ready(executor, tmp_path)
        seen = list(timed(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(2)))))
    outcomes = [outcome for _, outcome in seen]
    assert numbers(outcomes, Finished) == [0, 1]
    assert numbers(outcomes, Suspected) == [0]


def test_an_attempt_that_never_ends_on_our_cluster_is_ended_with_its_worker_and_done_again(tmp_path: Path) -> None:
    with local_cluster(fakes.hang_the_first_time, n_workers=2, stall_s=STALL_S) as executor:
        tasks = Tasks(*(fakes.make_task(tmp_path, number) for number in range(6)))
        seen = list(timed(ready(executor, tmp_path), tasks))
    stalled = told(seen, tmp_path / "hung")
    outcomes = [outcome for _, outcome in seen]
    assert numbers(outcomes, Finished) == list(range(6))
    assert numbers(outcomes, Suspected) == [1], "and no innocent"
    assert "workers were ended" in stalled.done
    assert any("hang_the_first_time" in line for line in stalled.evidence), stalled.evidence


def test_a_cluster_of_ours_that_says_nothing_is_replaced(tmp_path: Path) -> None:
    with local_cluster(fakes.succeed, n_workers=1, stall_s=2 * STALL_S) as executor:  # to replace it takes seconds by itself
        ready(executor, tmp_path)
        (worker,) = [
            child for child in psutil.Process(os.getpid()).children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
        ]
        worker.send_signal(signal.SIGSTOP)
        seen = list(timed(executor, Tasks(*(fakes.make_task(tmp_path, number) for number in range(4)))))
    assert told(seen, limit_s=2 * STALL_S).done == "the cluster was replaced"
    outcomes = [outcome for _, outcome in seen]
    assert numbers(outcomes, Finished) == list(range(4))
    assert numbers(outcomes, Suspected) == [], "nothing had begun there"
    assert not worker.is_running()


def test_a_task_that_workers_cannot_read_fails_and_is_not_waited_for(tmp_path: Path) -> None:
    with local_cluster(fakes.OnlyHere(), n_workers=1) as executor:
        seen = [outcome for _, outcome in timed(executor, Tasks(fakes.make_task(tmp_path, 0)))]
    (failed,) = seen
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.message, failed.final) == ("attempt_failed", "ModuleNotFoundError in Dask", False)


@pytest.mark.parametrize("isolated", [False, True])
def test_on_a_foreign_cluster_a_stuck_attempt_is_a_suspect_and_alone_it_is_ended(isolated: bool, tmp_path: Path) -> None:
    attempt: Attempt = fakes.hang_always_at_one if isolated else fakes.hang_the_first_time
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        executor = ready(given_client(attempt, client, stall_s=STALL_S), tmp_path)
        tasks = Tasks(fakes.make_task(tmp_path, 1, isolated=isolated), fakes.make_task(tmp_path, 2))
        seen = list(timed(executor, tasks))
        assert client.status == "running"
    outcomes = [outcome for _, outcome in seen]
    if isolated:
        (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        assert (failed.reason, failed.final) == ("stalled", False)
    else:
        assert told(seen, tmp_path / "hung").done == "they are tried elsewhere"
        assert numbers(outcomes, Suspected) == [1]
        assert numbers(outcomes, Finished) == [1, 2]


def test_a_foreign_scheduler_that_hangs_is_a_pause(tmp_path: Path) -> None:
    with RealCluster(tmp_path, n_workers=1) as cluster:

        def drive() -> None:
            with remote_cluster(fakes.hang_always_at_one, cluster.address, stall_s=STALL_S) as executor:
                for batch in executor.outcomes(Tasks(fakes.make_task(tmp_path, 1))):
                    assert not list(batch)
                    cluster.stop_scheduler()

        began = time.monotonic()
        with pytest.raises(Interrupted, match="does not answer"):
            drive()
        print(f"a scheduler that hangs: told and left after {time.monotonic() - began:.1f} s")  # noqa: T201 (the figure)
        assert time.monotonic() - began < 60


def test_workers_of_other_versions_are_refused_with_the_list_and_so_are_those_that_join_later(tmp_path: Path) -> None:
    older = tmp_path / "older"
    for name in ("xgboost", "pandas"):
        information = older / f"{name}-0.1.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    with RealCluster(tmp_path, n_workers=1) as cluster:

        def one_joins() -> None:
            with remote_cluster(fakes.succeed, cluster.address) as executor:
                tasks = Tasks(fakes.make_task(tmp_path, 0))
                for number, batch in enumerate(executor.outcomes(tasks)):
                    if number == 0:
                        cluster.add_worker(found_first=older)
                    if batch:
                        tasks.tasks.append(fakes.make_task(tmp_path, 1 + number))
                        time.sleep(0.1)

        with pytest.raises(Refused, match="version_skew"):
            one_joins()
        with pytest.raises(Refused, match="version_skew") as refusal, remote_cluster(fakes.succeed, cluster.address):
            pass
    said = {problem.what.split(",")[0] for problem in refusal.value.problems}
    assert said == {"xgboost 0.1", "pandas 0.1"}
    assert {problem.where.partition("://")[0] for problem in refusal.value.problems} == {"tcp"}


def test_inline_an_attempt_that_never_ends_is_told_with_its_stack_and_left_behind(tmp_path: Path) -> None:
    tasks = Tasks(*(fakes.make_task(tmp_path, number) for number in range(4)))
    seen = list(timed(InlineExecutor(fakes.hang_the_first_time, stall_s=STALL_S), tasks))
    stalled = told(seen, tmp_path / "hung")
    outcomes = [outcome for _, outcome in seen]
    assert numbers(outcomes, Finished) == list(range(4))
    assert numbers(outcomes, Suspected) == [1]
    assert any("hang_the_first_time" in line for line in stalled.evidence), stalled.evidence


def test_inline_what_was_given_up_twice_runs_in_a_child_that_is_ended(tmp_path: Path) -> None:
    tasks = Tasks(fakes.make_task(tmp_path, 1, isolated=True), fakes.make_task(tmp_path, 2))
    limit_s = 2 * STALL_S  # the child is ended at nine tenths of it, and a loaded machine needs part of a second to do so
    (at, failed), (_, finished) = timed(InlineExecutor(fakes.hang_always_at_one, stall_s=limit_s), tasks)
    assert isinstance(failed, Failed)
    assert (failed.reason, failed.final) == ("stalled", False)
    assert isinstance(finished, Finished)
    assert at < 2 * limit_s
    assert not [child for child in psutil.Process().children() if "batchscore.executors.isolated" in " ".join(child.cmdline())]


def test_inline_the_driver_comes_to_its_turn_while_an_attempt_is_under_way(tmp_path: Path) -> None:
    batches = InlineExecutor(fakes.wait_for_release).outcomes(Tasks(fakes.make_task(tmp_path, 0)))
    assert list(next(batches)) == [], "it may look for a stop"
    (tmp_path / "go").touch()
    assert isinstance(next(batch for batch in batches if batch)[0], Finished)


def test_inline_what_ends_a_process_ends_the_driver(tmp_path: Path) -> None:
    def interrupted(_task: Task) -> Receipt:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(InlineExecutor(interrupted).outcomes(Tasks(fakes.make_task(tmp_path, 0))))
