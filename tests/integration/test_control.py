"""pause, continue and cancel reach a driver through the database: seen within two seconds, drained, resumable, the same bits."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

import batchscore
from batchscore.dispatch.limits import Limits
from batchscore.errors import BatchscoreError, Cancelled, Interrupted, Paused, Refused
from batchscore.executors.connect import local_cluster
from batchscore.executors.dask_cluster import DaskExecutor
from batchscore.executors.inline import InlineExecutor
from batchscore.operations.control import Controlled
from batchscore.pipeline import run
from batchscore.plan import Stage
from batchscore.planner import make_plan
from batchscore.ports import Executor, RunRow
from batchscore.store import database_name, open_reader, open_store
from tests import fake_attempts as fakes
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

SEEN_WITHIN_S = 2.0
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    made = make_small_world(tmp_path_factory.mktemp("world"))
    made.text["partition_rows"] = "12"  # more than two workers are handed at once
    return made


@pytest.fixture(scope="module")
def undisturbed(world: SmallWorld) -> str:
    plan = make_plan(world.spec(store="undisturbed"))
    row = run(plan, executor=InlineExecutor(fakes.score_when_told), store=open_store(world.folder / "undisturbed", world.kind),
              observer=lambda _event: None)  # fmt: skip
    return run_digest(world.folder / "undisturbed", row.run_id)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[DaskExecutor]:
    with local_cluster(fakes.score_when_told, n_workers=2) as executor:
        yield executor


T = TypeVar("T")


def wait_for(look: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found


class Driven:
    """A driver in a thread of its own, at a store of its own. Two of its score partitions are done, the others wait for `go`."""

    def __init__(self, world: SmallWorld, folder: Path, executor: Executor, *, max_wait: timedelta | None = None) -> None:
        self.folder, self._world, self._executor = folder, world, executor
        folder.mkdir(exist_ok=True)
        (folder / "hold").touch()
        database = database_name(folder)
        self.plan = make_plan(world.spec(store=folder.name, **({"database": database} if database else {})))
        self.limits = Limits(max_wait=max_wait)
        self.ended = self.drive()
        (self.run_id,) = wait_for(self._run_ids)
        wait_for(lambda: self.n_scored() >= 2)

    def drive(self) -> Future[RunRow]:
        store = open_store(self.folder, self._world.kind)
        return ThreadPoolExecutor(1).submit(
            run, self.plan, executor=self._executor, store=store, observer=lambda _event: None, limits=self.limits
        )

    def _run_ids(self) -> list[str]:
        with suppress(Refused):  # the store is not made yet
            return [row.run_id for row in open_reader(self.folder).runs()]
        return []

    def row(self) -> RunRow:
        return open_reader(self.folder).run(self.run_id)

    def n_scored(self) -> int:
        return sum(row.n_committed for row in open_reader(self.folder).stages(self.run_id) if row.stage is Stage.SCORE)

    def n_to_score(self) -> int:
        return sum(row.n_partitions for row in open_reader(self.folder).stages(self.run_id) if row.stage is Stage.SCORE)

    def go(self) -> None:
        (self.folder / "hold").unlink(missing_ok=True)


@pytest.fixture(
    params=[
        "inline on sqlite",
        "dask on sqlite",
        pytest.param("inline on mysql", marks=pytest.mark.mysql),
        pytest.param("dask on mysql", marks=pytest.mark.mysql),
    ]
)
def driven(
    request: pytest.FixtureRequest, world: SmallWorld, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Driven]]:
    """Starts a driver: inline or on Dask, at SQLite or MySQL; whatever a test left is ended with it."""
    where, _, database = request.param.partition(" on ")
    folder = world.folder / f"store-{uuid.uuid4().hex}"
    if database == "mysql":
        request.getfixturevalue("mysql_store")(folder, world.kind)
    executor = request.getfixturevalue("two_workers") if where == "dask" else InlineExecutor(fakes.score_when_told)
    started: list[Driven] = []

    def start(max_wait: timedelta | None = None) -> Driven:
        started.append(Driven(world, folder, executor, max_wait=max_wait))
        return started[-1]

    yield start
    for one in started:
        one.limits.stop.set()
        one.go()
        with suppress(BatchscoreError):
            one.ended.result(PATIENCE_S)


def seen(found: Controlled) -> float:
    assert found.seen_after_s is not None, "its driver never said that it saw"
    print(f"seen after {found.seen_after_s:.2f} s")  # noqa: T201 (the figure)
    assert found.seen_after_s <= SEEN_WITHIN_S
    return found.seen_after_s


def test_a_paused_run_drains_stays_and_goes_on_where_it_was(driven: Callable[..., Driven], undisturbed: str) -> None:
    one = driven()
    seen(batchscore.pause(one.run_id, store=one.folder, by="Ada", why="the database is slow"))
    assert one.row().stands == "pausing", "what is in flight is not over"
    one.go()
    wait_for(lambda: one.row().stands == "paused")
    n_scored, row = one.n_scored(), one.row()
    assert 2 <= n_scored < one.n_to_score()
    assert row.why.startswith("paused by Ada since ")
    assert row.why.endswith("the database is slow")
    time.sleep(1.0)
    assert one.n_scored() == n_scored
    assert not one.ended.done(), "its driver stays, with its lease"
    assert not one.row().driver_gone
    began = time.monotonic()
    assert batchscore.continue_(one.run_id, store=one.folder, by="Bob").stands == "running"
    wait_for(lambda: one.n_scored() > n_scored)
    print(f"went on after {time.monotonic() - began:.2f} s")  # noqa: T201 (the figure)
    row = one.ended.result(PATIENCE_S)
    assert (row.state, row.epoch, row.why) == ("finished", 1, "")
    assert run_digest(one.folder, one.run_id) == undisturbed


def test_a_cancelled_run_is_a_prefix_that_resume_goes_on_from(driven: Callable[..., Driven], undisturbed: str) -> None:
    one = driven()
    seen(batchscore.cancel(one.run_id, store=one.folder, by="Ada"))
    one.go()
    with pytest.raises(Cancelled, match=f"cancelled by Ada.*\n.*batchscore resume {one.run_id}") as cancelled:
        one.ended.result(PATIENCE_S)
    assert cancelled.value.exit_code == 4
    row, n_scored = one.row(), one.n_scored()
    assert (row.state, row.stands, row.released_at) == ("cancelled", "cancelled", None)
    assert 2 <= n_scored < one.n_to_score()
    with pytest.raises(Cancelled, match="batchscore resume"):
        one.drive().result(PATIENCE_S)  # as `run SPEC` of a timer would
    with pytest.raises(Refused, match="nothing_to_control"):
        batchscore.pause(one.run_id, store=one.folder)
    assert one.n_scored() == n_scored
    assert batchscore.resume(one.run_id, store=one.folder, inline=True).state == "finished"
    assert run_digest(one.folder, one.run_id) == undisturbed


@pytest.mark.parametrize("driven", ["inline on sqlite"], indirect=True)
def test_a_stop_ends_a_paused_driver_and_nobody_takes_the_run_up_before_it_is_continued(driven: Callable[..., Driven]) -> None:
    one = driven()
    batchscore.pause(one.run_id, store=one.folder, by="Ada")
    one.go()
    wait_for(lambda: one.row().stands == "paused")
    one.limits.stop.set()
    with pytest.raises(Interrupted, match="batchscore resume"):
        one.ended.result(PATIENCE_S)
    assert (one.row().state, one.row().stands) == ("interrupted", "paused")
    with pytest.raises(Paused, match=r"run_paused.*paused by Ada(.|\n)*batchscore continue") as refused:
        batchscore.resume(one.run_id, store=one.folder, inline=True)
    assert refused.value.exit_code == 4
    found = batchscore.continue_(one.run_id, store=one.folder, by="Ada")
    assert (found.stands, found.driven) == ("interrupted", False)
    assert batchscore.resume(one.run_id, store=one.folder, inline=True).state == "finished"


@pytest.mark.parametrize("driven", ["inline on sqlite"], indirect=True)
def test_a_pause_longer_than_the_longest_wait_ends_the_driver_held(driven: Callable[..., Driven]) -> None:
    one = driven(max_wait=timedelta(seconds=1))
    batchscore.pause(one.run_id, store=one.folder, by="Ada")
    one.go()
    with pytest.raises(Paused, match=r"batchscore continue .*batchscore resume") as paused:
        one.ended.result(PATIENCE_S)
    assert (paused.value.reason, paused.value.exit_code, one.row().state) == ("run_paused", 4, "paused")
