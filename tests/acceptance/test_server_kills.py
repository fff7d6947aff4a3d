"""A run whose MySQL server is killed and started again, at random, ends with the same bits as one left alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchscore.attempt import attempt
from batchscore.executors.inline import InlineExecutor
from batchscore.pipeline import run
from batchscore.plan import Stage, Task
from batchscore.planner import make_plan
from batchscore.receipt import Receipt
from batchscore.store import open_reader, open_store
from tests.conftest import MakeMySqlStore
from tests.mysql_server import PrivateServer
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world

N_KILLS = 20
N_ACCOUNTS = 1_500
PARTITION_ROWS = 12  # some 120 score partitions
SLOWED_S = 0.02

pytestmark = pytest.mark.mysql


class Killer:
    """Kills the server after a while and starts it again, as often as it is told in all."""

    def __init__(self, server: PrivateServer) -> None:
        self.n_killed = 0
        self._server = server
        self._chance = random.Random(20261125)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the block lasts."""
        over = threading.Event()
        thread = threading.Thread(target=self._work, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _work(self, over: threading.Event) -> None:
        while self.n_killed < N_KILLS and not over.wait(self._chance.uniform(0.1, 1.2)):
            self._server.kill()
            self.n_killed += 1
            self._server.start()


def slow_attempt(task: Task) -> Receipt:
    time.sleep(SLOWED_S)
    return attempt(task)


def whole_run(world: SmallWorld, folder: Path, *, database: str | None) -> str:
    named = {"database": database} if database else {}
    plan = make_plan(world.spec(store=folder.name, partition_rows=str(PARTITION_ROWS), **named))
    store = open_store(folder, "integer")
    return run(plan, executor=InlineExecutor(slow_attempt), store=store, observer=lambda _event: None).run_id


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_of_the_server_lose_nothing_and_double_nothing(
    private_server: PrivateServer, mysql_store: MakeMySqlStore, tmp_path: Path
) -> None:
    calm = make_small_world(tmp_path / "calm", n_accounts=N_ACCOUNTS)
    undisturbed = run_digest(calm.folder / "store", whole_run(calm, calm.folder / "store", database=None))
    world = make_small_world(tmp_path / "killed", n_accounts=N_ACCOUNTS)
    killer, n_runs = Killer(private_server), 0
    while killer.n_killed < N_KILLS:
        n_runs += 1
        folder = mysql_store(world.folder / f"store-{n_runs}", server=private_server)
        with killer.at_work():
            run_id = whole_run(world, folder, database="review")
        reader = open_reader(folder)
        stages = {stage.stage: stage for stage in reader.stages(run_id)}
        assert stages[Stage.SCORE].n_partitions >= 100
        assert sum(stage.n_quarantined for stage in stages.values()) == 0
        assert run_digest(folder, run_id) == undisturbed
    print(f"{N_KILLS} kills of the server over {n_runs} runs of at least 100 partitions: equal, 0 lost, 0 doubled")
